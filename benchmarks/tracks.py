"""Who is who in Sports2D's video, and how long it takes.

`python -m benchmarks.tracks --json FILE` runs the demo's way on the whole video: a man jumps on a
roof, turns a somersault off it and runs away; a woman walks by below. What a viewer sees is in
`PEOPLE`: boxes in some frames, checked by eye. A switch is a frame after which a person goes on
under another number. `strangers` are seconds of tracks that are nobody's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import print_markdown, write
from benchmarks.real_photos import VIDEO, VIDEO_SHA256, VIDEO_WHEEL
from scripts.build.wheels import read_from_wheel
from smpler.models.detectors.landmarks import SIZES
from smpler.models.inference.backends import BACKENDS
from smpler.models.predictor import Predictor
from smpler.utils.flags import Parser, device_name, input_file, output_file, program
from smpler.utils.image import Box, iou
from smpler.video.clip import ClipOptions, process_clip
from smpler.video.drawing import can_encode
from smpler.video.reader import open_video
from smpler.video.track_result import TrackResult

PEOPLE: dict[str, dict[int, Box]] = {
    "man": {
        0: (590.0, 80.0, 125.0, 375.0),
        30: (475.0, 15.0, 300.0, 440.0),
        60: (530.0, 60.0, 200.0, 385.0),
        90: (565.0, 55.0, 155.0, 370.0),
        120: (635.0, 80.0, 150.0, 360.0),
        150: (735.0, 90.0, 145.0, 375.0),
        190: (1000.0, 470.0, 110.0, 420.0),
        200: (1060.0, 740.0, 195.0, 145.0),
        215: (1180.0, 570.0, 300.0, 290.0),
        225: (1315.0, 560.0, 170.0, 320.0),
    },
    "woman": {
        50: (1440.0, 540.0, 100.0, 390.0),
        75: (1180.0, 525.0, 220.0, 420.0),
        105: (865.0, 510.0, 150.0, 425.0),
        135: (545.0, 510.0, 240.0, 430.0),
        165: (305.0, 510.0, 120.0, 430.0),
        190: (0.0, 515.0, 215.0, 445.0),
    },
}
"""x, y, width, height in pixels, by the number of the frame; to some ten pixels."""
MIN_OVERLAP = 0.25
"""Intersection over union from which on a track is the person's."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the numbers."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--wheel", type=input_file, help=f"wheel of {VIDEO_WHEEL}; downloaded if not given")
    add("--landmarks", choices=list(SIZES), help="BlazePose's network; default: as demo.py")
    add("--device", type=device_name, default="cpu")
    add("--backend", choices=BACKENDS, default="eager", help="what runs the networks")
    add("--json", type=output_file, help="file for the numbers")
    args = parser.parse_args(argv)
    content = read_from_wheel(VIDEO_WHEEL, VIDEO, VIDEO_SHA256, args.wheel)
    predictor = Predictor.load(device=args.device, backend=args.backend, landmarks=args.landmarks)
    predictor.load_person_detector()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.mp4"
        path.write_bytes(content)
        clip = open_video(path)
        times: dict[str, list[float]] = {}
        start = time.perf_counter()
        result = process_clip(
            clip,
            predictor,
            folder,
            options=ClipOptions(video=can_encode()),
            progress=lambda stage, *_: times.setdefault(stage, []).append(time.perf_counter()),
        )
        seconds = time.perf_counter() - start
        sizes = {file.suffix: file.stat().st_size / 2**20 for file in result.written}
    count = sum(len(track.frames) for track in result.tracks)
    numbers = counted(result.tracks) | {
        "threads": torch.get_num_threads(),
        "person-frames": count,
        "seconds": seconds,
        "person-frames/s": count / seconds,
        "frames/s": (clip.count or 0) / seconds,
        "with mp4": can_encode(),
    }
    ends = [start, *(stage[-1] for stage in times.values())]
    for name, before, after in zip(times, ends, ends[1:], strict=False):
        numbers[f"seconds {name}"] = after - before
    numbers |= {f"MiB {suffix}": size for suffix, size in sizes.items()}
    print_markdown(numbers)
    write(args.json, numbers)
    return 0


def counted(tracks: Sequence[TrackResult]) -> dict[str, float]:
    """Return how many people were found, in how many of their frames, and what went wrong."""
    found, seen, switches = 0, [], 0
    own = set()
    for places in PEOPLE.values():
        numbers = [owner(tracks, frame, box) for frame, box in places.items()]
        known = [number for number in numbers if number is not None]
        found += bool(known)
        seen.append(len(known) / len(numbers))
        switches += sum(a != b for a, b in zip(known, known[1:], strict=False))
        own |= set(known)
    strangers = [len(t.frames) / t.fps for t in tracks if t.track not in own]
    return {
        "people": len(PEOPLE),
        "found": found,
        "places found": float(np.mean(seen)),
        "tracks": len(tracks),
        "switches": switches,
        "strangers, s": float(sum(strangers)),
    }


def owner(tracks: Sequence[TrackResult], frame: int, box: Box) -> int | None:
    """Return the number of the track that is where somebody is; None if there is none."""
    overlaps = {}
    for track in tracks:
        rows = np.flatnonzero(track.frames == frame)
        if len(rows):
            overlaps[track.track] = iou(tuple(track.box[rows[0]].tolist()), box)
    best = max(overlaps, key=lambda number: overlaps[number], default=None)
    return best if best is not None and overlaps[best] >= MIN_OVERLAP else None


if __name__ == "__main__":
    sys.exit(main())
