"""From a clip to motions: what `demo.py clip.mp4` does, and `process_clip` for Python.

Three passes: every frame is looked at (`watch`), each person's motion is found (`person`), and the
frames are drawn (`drawing`). The first and the last keep what they have done in a work folder.
"""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

import numpy as np

from smpler import __version__
from smpler.models.predictor import MAX_PEOPLE, Predictor
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.drawing.visualize import Rasterizer, palette
from smpler.utils.image import Photo
from smpler.utils.inputs import focal_length_of
from smpler.video.drawing import MISSING, can_encode, draw_clip
from smpler.video.motion import Settings
from smpler.video.parallel import beside
from smpler.video.person import Track, View, track_result
from smpler.video.reader import Clip, Part, VideoFile, breaks_off, used_count, used_fps, used_frames
from smpler.video.track_result import TrackResult, save_tracks
from smpler.video.watch import Seen, read_seen, watch

LEAST_TIME = 0.5
"""Seconds for which someone must be seen to be a person of a clip."""
Progress = Callable[[str, int, int | None], None]
"""Gets what is being done, how many frames are done, and how many there are, if that is known."""


@dataclass(frozen=True)
class ClipOptions:
    """What is wanted of a clip."""

    part: Part = Part()
    focal_length: float | None = None
    """Of the frames, pixels; None: their diagonal."""
    max_people: int = MAX_PEOPLE
    """Those who are seen most of are kept."""
    meshes: bool = False
    """Keep the vertices of every frame in the npz."""
    video: bool = True
    """Write the MP4."""
    resume: bool = False
    """Go on where a run of the same kind broke off."""
    rasterizer: Rasterizer = rasterize
    settings: Settings = Settings()


@dataclass(frozen=True)
class ClipResult:
    """What a clip gave."""

    tracks: list[TrackResult]
    written: list[Path]
    notes: list[str] = field(default_factory=list)
    """What a user should know, a sentence each."""


def process_clip(
    clip: Clip,
    predictor: Predictor,
    folder: str | Path,
    stem: str | None = None,
    options: ClipOptions = ClipOptions(),  # noqa: B008  # frozen
    progress: Progress = lambda *_: None,
) -> ClipResult:
    """Find the people of a clip and their motions, and write them.

    STEM_trackN.npz and STEM_trackN.bvh of each person, STEM.glb with all of them, and STEM_out.mp4
    if PyAV is installed. While it works, STEM_work holds what is done so far. Files of an earlier
    run stay until new ones are written, then all of them go.

    Args:
        clip: see `smpler.video.reader`.
        predictor: sees the people.
        folder: is made when it is not there.
        stem: of the files' names; None: the clip's name without its suffix.
        options: what is wanted.
        progress: is called after every frame.

    Raises:
        ValueError: the part of the clip has no frame, or a frame or an option is unusable.
        OSError: a file could not be written.
    """
    folder, stem = Path(folder), stem or Path(clip.name).stem
    work = folder / f"{stem}_work"
    work.mkdir(parents=True, exist_ok=True)
    first = next(used_frames(clip, options.part), None)
    if first is None:
        raise ValueError(
            f"{clip.name}: no frame lies between --start {options.part.start:g} and --stop "
            f"{options.part.stop if options.part.stop is not None else 'the end'}."
        )
    photo = Photo(first.image, clip.name, None)
    focal_length, source = focal_length_of(photo, options.focal_length)
    size = (first.image.shape[1], first.image.shape[0])
    view = View(clip.name, size, used_fps(clip, options.part), focal_length, source)
    identity = _identity(clip, predictor, view, options)
    notes = []
    last = _watched(clip, predictor, work, options, focal_length, identity, progress)
    if options.part.stop is None and breaks_off(clip, last):
        notes.append(
            f"{clip.name} breaks off after frame {last} of {clip.count}; what was read is kept."
        )
    seen = read_seen(work)
    tracks = list(_tracks(seen, view, predictor, options, progress)) if seen is not None else []
    if not tracks:
        shutil.rmtree(work)
        warnings.warn(f"{clip.name}: nobody was found.", stacklevel=2)
        return ClipResult([], [], notes)
    body = predictor.model.smpl.body
    rigs = [body.rig(track.betas) for track in tracks]
    written = save_tracks(folder, stem, tracks, rigs, palette(len(tracks)))
    if options.video and not can_encode():
        notes.append(MISSING)
        return ClipResult(tracks, written, notes)
    if options.video:
        path = folder / f"{stem}_out.mp4"
        drawing = identity | {"tracks": _digest(tracks)}
        count = used_count(clip, options.part)
        draw_clip(
            clip,
            options.part,
            view.fps,
            tracks,
            predictor.model.smpl,
            work,
            path,
            options.rasterizer,
            drawing,
            lambda done: progress("drawing", done, count),
        )
        written.append(path)
    shutil.rmtree(work)
    return ClipResult(tracks, written, notes)


def _watched(
    clip: Clip,
    predictor: Predictor,
    work: Path,
    options: ClipOptions,
    focal_length: float,
    identity: dict,
    progress: Progress,
) -> int:
    """Look at all frames; return the number of the last one in the clip."""
    done, last = 0, -1
    for frame, _ in watch(
        clip, options.part, predictor, focal_length, work, options.resume, identity
    ):
        done += 1
        last = last if frame is None else frame.number
        progress("looking", done, used_count(clip, options.part))
    if last < 0:  # all of it was known
        seen = read_seen(work)
        last = -1 if seen is None else int(seen.frames[-1])
    return last


def _tracks(
    seen: Seen, view: View, predictor: Predictor, options: ClipOptions, progress: Progress
) -> Iterator[TrackResult]:
    """Yield the people in order of appearance."""
    numbers = _whom(seen, view, options.max_people)
    with beside(2) as workers:
        jobs = [
            workers.start(
                track_result,
                Track.of(seen, number),
                count,
                seen,
                view,
                predictor,
                options.settings,
                options.meshes,
            )
            for count, number in enumerate(numbers, start=1)
        ]
        for count, job in enumerate(jobs, start=1):
            yield job.result()
            progress("moving", count, len(numbers))


def _whom(seen: Seen, view: View, max_people: int) -> list[int]:
    """Return the tracks that count, of those of longest time and largest size at most so many."""
    least = min(LEAST_TIME * view.fps, 0.5 * len(seen.frames))
    sizes = {}
    for number in np.unique(seen.track).tolist():
        rows = seen.track == number
        if rows.sum() >= least:
            sizes[number] = float(seen.box[rows, 2:].prod(axis=1).sum())
    largest = sorted(sizes, key=lambda number: -sizes[number])[:max_people]
    return sorted(largest)


def _identity(clip: Clip, predictor: Predictor, view: View, options: ClipOptions) -> dict:
    """Return what the results depend on."""
    files = [clip.path] if isinstance(clip, VideoFile) else getattr(clip, "files", [])
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    content = hashlib.sha256(repr(stats).encode()).hexdigest()
    landmarks = predictor.detectors.landmark_size(quick=True)
    return {
        "version": __version__,
        "clip": clip.name,
        "content": content,
        "count": clip.count,
        "part": astuple(options.part),
        "size": view.size,
        "fps": view.fps,
        "focal_length": view.focal_length,
        "weights": [predictor.weights, predictor.weights_sha256, landmarks],
        "body": predictor.model.smpl.body.sha256,
        "ways": [predictor.mirror, predictor.fit, predictor.lift],
    }


def _digest(tracks: Sequence[TrackResult]) -> str:
    """Return a hash of the motions."""
    digest = hashlib.sha256()
    for track in tracks:
        for values in (track.frames, track.rotmat, track.betas, track.translation):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
