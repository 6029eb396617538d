"""The demo's photos: people found photo by photo, estimated in batches, written, summed up."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smpler.models.answers import LOW_QUALITY, Found
from smpler.models.predictor import Predictor
from smpler.utils.drawing.visualize import Rasterizer
from smpler.utils.export import PersonResult, save_people
from smpler.utils.image import read_photo
from smpler.utils.paths import display

MAX_WAITING = 50_000_000
"""Pixels of photos that wait for their batch, at most; a larger photo does not wait."""


@dataclass(frozen=True)
class Job:
    """A photo or clip, and what its results are called."""

    path: Path
    name: str
    is_clip: bool


def process_photos(
    jobs: Sequence[Job],
    predictor: Predictor,
    arguments: argparse.Namespace,
    find_triangles: Rasterizer,
) -> int:
    """Estimate the people in photos, write the results; return how many photos were not done.

    Args:
        jobs: the photos.
        predictor: estimates.
        arguments: the demo's.
        find_triangles: for the pictures.
    """
    failures = 0
    waiting: list[tuple[Job, Found]] = []

    def finish() -> int:
        """Estimate those who wait, together, and write their results."""
        failed = 0
        try:
            results = predictor.results([found for _, found in waiting])
        except (OSError, ValueError) as error:
            complain(error)
            failed, results = len(waiting), []
        for (job, found), people in zip(waiting, results, strict=False):
            line = f"{display(job.path)}: {summary(people)}"
            try:
                if people:
                    written = save_people(
                        people,
                        found.group.image,
                        arguments.out_dir,
                        job.name,
                        find_triangles,
                        arguments.json_mesh,
                    )
                    line += f" -> {display(written)}"
            except (OSError, ValueError) as error:
                failed += 1
                complain(error)
                continue
            print(line)
        waiting.clear()
        return failed

    for job in jobs:
        if arguments.skip_done and (arguments.out_dir / f"{job.name}_out.png").is_file():
            print(f"{display(job.path)}: done before")
            continue
        try:
            photo = read_photo(job.path)
            found = predictor.find(
                photo, arguments.bbox, arguments.max_people, arguments.focal_length
            )
        except (OSError, ValueError) as error:
            failures += finish()
            failures += 1
            complain(error)
            continue
        waiting.append((job, found))
        if (
            sum(len(x.group) for _, x in waiting) >= arguments.batch
            or sum(x.group.image.size // 3 for _, x in waiting) >= MAX_WAITING
        ):
            failures += finish()
    return failures + finish()


def summary(people: Sequence[PersonResult]) -> str:
    """Say in a few words who was found in a photo, and how good the answer is."""
    count = "1 person" if len(people) == 1 else f"{len(people)} people"
    if not people:
        return count
    qualities = ", ".join(
        f"{person.quality:.2f}{' (low)' if person.quality < LOW_QUALITY else ''}"
        for person in people
    )
    refused = [str(person.person) for person in people if person.fit in ("refused", "no landmarks")]
    note = f"; not fitted: {', '.join(refused)}" if refused else ""
    lens = f"focal length {people[0].focal_length:.0f} px ({people[0].focal_length_source})"
    return f"{count}, quality {qualities}, {lens}{note}"


def complain(error: Exception) -> int:
    """Print what is wrong, in one sentence; return the exit code of a user's mistake."""
    print(f"Error: {error}", file=sys.stderr)
    return 2
