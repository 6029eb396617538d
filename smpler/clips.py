"""The demo's clips: videos, folders of frames and cameras, with a progress bar."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from smpler.models.answers import LOW_QUALITY
from smpler.models.predictor import Predictor
from smpler.stills import Job, complain
from smpler.utils.drawing.visualize import Rasterizer
from smpler.utils.paths import display
from smpler.video.clip import ClipOptions, ClipResult, process_clip
from smpler.video.drawing import can_encode
from smpler.video.reader import Clip, Part, open_folder, open_video, record
from smpler.video.track_result import TrackResult

STAGES = {"looking": "looking for people", "moving": "finding motions", "drawing": "drawing"}


def process_clips(
    jobs: Sequence[Job],
    predictor: Predictor,
    arguments: argparse.Namespace,
    find_triangles: Rasterizer,
) -> int:
    """Find the motions of people in clips, write the results; return how many were not done.

    Args:
        jobs: the clips.
        predictor: sees people.
        arguments: the demo's.
        find_triangles: for the video.
    """
    failures = 0
    options = ClipOptions(
        part=Part(arguments.start, arguments.stop, arguments.every),
        focal_length=arguments.focal_length,
        max_people=arguments.max_people,
        meshes=arguments.meshes,
        resume=arguments.resume,
        rasterizer=find_triangles,
    )
    for job in jobs:
        if arguments.skip_done and is_done(arguments.out_dir, job.name):
            print(f"{display(job.path)}: done before")
            continue
        try:
            clip = opened(job, arguments)
            with Bar(display(job.path)) as bar:
                result = process_clip(
                    clip, predictor, arguments.out_dir, job.name, options, bar.update
                )
        except KeyboardInterrupt:
            print(
                f"{display(job.path)}: stopped; the same command with --resume goes on.",
                file=sys.stderr,
            )
            return failures + 1
        except (OSError, ValueError) as error:
            failures += 1
            complain(error)
            continue
        for note in result.notes:
            print(f"Note: {note}", file=sys.stderr)
        print(f"{display(job.path)}: {summary(result)}")
    return failures


def opened(job: Job, arguments: argparse.Namespace) -> Clip:
    """Open a clip; a camera is recorded first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    if arguments.webcam is not None:
        return record(arguments.webcam, arguments.out_dir / f"{job.name}_frames", arguments.stop)
    if job.path.is_dir():
        return open_folder(job.path, arguments.fps)
    return open_video(job.path)


def is_done(folder: Path, name: str) -> bool:
    """Say whether a clip has its results already."""
    if (folder / f"{name}_work").is_dir():
        return False
    return (folder / (f"{name}_out.mp4" if can_encode() else f"{name}.glb")).is_file()


def summary(result: ClipResult) -> str:
    """Say in a few words who was found in a clip, how long and how well."""
    count = len(result.tracks)
    if not count:
        return "0 people"
    people = ", ".join(_of_track(track) for track in result.tracks)
    return (
        f"{count} {'person' if count == 1 else 'people'}: {people} -> {display(result.written[-1])}"
    )


def _of_track(track: TrackResult) -> str:
    quality = float(np.mean(track.quality[track.is_seen]))
    low = " (low)" if quality < LOW_QUALITY else ""
    first, last = track.times[0], track.times[-1] + 1 / track.fps
    return f"{track.track} from {first:.1f} to {last:.1f} s, quality {quality:.2f}{low}"


class Bar:
    """A progress bar for each pass over a clip, with the time that is left; silent in a pipe.

    Args:
        name: of the clip.
    """

    def __init__(self, name: str):
        self.name, self.stage = name, ""
        self.bar: tqdm | None = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Say how far a pass is."""
        if stage != self.stage:
            self.__exit__()
            self.stage = stage
            self.bar = tqdm(
                total=total, desc=f"{self.name}: {STAGES[stage]}", leave=False, disable=None
            )
        assert self.bar is not None
        self.bar.update(done - self.bar.n)
