"""How well the people in pictures of groups are found, and their bodies estimated.

`python -m benchmarks.groups --json FILE --sheet PNG` shows rendered groups of known people
(`benchmarks.groups.scenes`) and real photos (`benchmarks.groups.photos`) to the demo's detector and
to BlazePose's alone. Half A of the pictures is for choosing, half B for judging; of the rendered
ones, A are those of even number. `--thresholds` adds, for half A alone, what other thresholds give.
Whoever shows less than half of the body, or less than 64 pixels of height, is neither missed when
not found, nor wrong when found. `first` counts the pictures in which nobody is both nearer to the
middle and clearly larger than whom the detector's people put first. Of the rendered people, the
errors of the bodies follow (`benchmarks.groups.bodies`).
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from tqdm import tqdm

from benchmarks.groups.bodies import BodyError, body_errors, summary
from benchmarks.groups.matching import Target, is_prominent, match
from benchmarks.groups.photos import CHOOSING, JUDGING, read_photos
from benchmarks.groups.scenes import GroupPictures, Person
from benchmarks.harness import machine, write
from smpler.models.detectors import Detection, PersonDetector, prominence
from smpler.models.detectors.everybody import EverybodyDetector
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.models.predictor import Predictor
from smpler.utils.flags import (
    Parser,
    input_folder,
    output_file,
    output_png,
    positive,
    program,
    whole,
)
from smpler.utils.image import write_image
from smpler.utils.paths import display

MIN_VISIBLE, MIN_HEIGHT = 0.5, 64
"""Share of the body, and pixels of its visible height, from which on a person counts."""
EVERYBODY, BLAZEPOSE = "everybody", "blazepose"
THRESHOLDS = {
    EVERYBODY: (0.2, 0.25, 0.3, 1 / 3, 0.37, 0.4, 0.45, 0.5),
    BLAZEPOSE: (0.3, 0.4, 0.5, 0.6),
}
BINS = {"height": (64, 128, 256, np.inf), "visible": (0.5, 0.75, 0.95, np.inf)}
"""Bounds between which the people of the rendered pictures are counted together."""
NUM_TILES, TILE = 40, 400
"""Pictures of the sheet, and pixels of a tile's side."""
GREEN, YELLOW, RED, BLUE = (0, 220, 0), (230, 220, 0), (255, 0, 0), (60, 120, 255)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, who is in it, and what the detectors find."""

    image: UInt8[np.ndarray, "h w 3"]
    targets: list[Target]
    found: dict[str, Sequence[Detection]]
    """By each detector."""
    people: Sequence[Person] = ()
    """The labels of a rendered picture."""
    bodies: Sequence[BodyError] = ()
    """Of a rendered picture."""

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height."""
        return self.image.shape[1], self.image.shape[0]


@dataclass
class Score:
    """Counts over some pictures."""

    people: int = 0
    found: int = 0
    false: int = 0
    pictures: int = 0
    first: int = 0
    """Pictures whose most prominent detection is someone who `is_prominent`."""

    def add(self, detections: Sequence[Detection], picture: Picture) -> None:
        """Count a picture."""
        matching = match(detections, picture.targets)
        self.people += sum(target.counts for target in picture.targets)
        self.found += len(matching.hits)
        self.false += len(matching.false)
        self.pictures += 1
        order = prominence(detections, picture.size)
        first = dict(matching.hits).get(order[0]) if order else None
        self.first += is_prominent(first, picture.targets, picture.size)

    def numbers(self) -> dict[str, float]:
        """Return counts, recall and precision."""
        recall = self.found / max(self.people, 1)
        precision = self.found / max(self.found + self.false, 1)
        return vars(self) | {"recall": recall, "precision": precision}


@dataclass
class Detectors:
    """Both detectors, and the seconds that each of them took."""

    both: Mapping[str, PersonDetector]
    seconds: dict[str, float] = field(default_factory=lambda: {EVERYBODY: 0.0, BLAZEPOSE: 0.0})

    def find(self, image: UInt8[np.ndarray, "h w 3"]) -> dict[str, Sequence[Detection]]:
        """Return the people of a picture by each detector."""
        found = {}
        for name, detector in self.both.items():
            start = time.perf_counter()
            found[name] = detector.detect(image)
            self.seconds[name] += time.perf_counter() - start
        return found


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = Parser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--num", type=positive, default=200, help="rendered pictures")
    add("--seed", type=whole, default=0)
    add("--no-photos", dest="photos", action="store_false", help="rendered pictures only")
    add("--no-bodies", dest="bodies", action="store_false", help="detectors only")
    add(
        "--wheels",
        type=input_folder,
        help="folder of wheels with photos; the others are downloaded",
    )
    add("--thresholds", action="store_true", help="try other thresholds on half A")
    add("--threads", type=positive, help="of torch; default: its own choice")
    add("--json", type=output_file, help="the numbers")
    add("--sheet", type=output_png, help="picture of the rendered groups with most mistakes")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    both = {EVERYBODY: EverybodyDetector.load(), BLAZEPOSE: BlazePosePersonDetector.load()}
    detectors, predictor = Detectors(both), Predictor.load(device="cpu") if args.bodies else None
    photos: dict[str, list[Picture]] = {}
    if args.photos:  # first, as a wheel may be missing
        for name, half in (("photos A", CHOOSING), ("photos B", JUDGING)):
            photos[name] = look_at_photos(Detectors(both), read_photos(half, args.wheels))
    rendered = look_at_rendered(detectors, predictor, GroupPictures(args.seed), args.num)
    halves = {"rendered A": rendered[::2], "rendered B": rendered[1::2]} | photos
    milliseconds = {n: 1000 * s / args.num for n, s in detectors.seconds.items()}
    counts = {name: scores(pictures) for name, pictures in halves.items()}
    print_scores(counts)
    bins = recall_of_bins(rendered)
    print_bins(bins)
    bodies = bodies_of(halves) if args.bodies else {}
    print_bodies(bodies)
    result: dict[str, Any] = counts | {"bodies": bodies} | {"by height and visible share": bins}
    if args.thresholds:
        chosen = {name: pictures for name, pictures in halves.items() if name.endswith("A")}
        tried = try_thresholds(both, chosen)
        print_thresholds(tried)
        result["thresholds"] = tried
    result |= {"milliseconds": milliseconds, "seed": args.seed, **machine(torch.device("cpu"))}
    write(args.json, result)
    if args.sheet:
        write_image(args.sheet, draw_sheet(rendered))
        print(f"rendered groups: {display(args.sheet)}")
    return 0


def look_at_rendered(
    detectors: Detectors, predictor: Predictor | None, pictures: GroupPictures, num: int
) -> list[Picture]:
    """Render groups and show them to the detectors, and to the predictor if there is one."""
    looked = []
    for index in tqdm(range(num), disable=None):
        rendered = pictures[index]
        # nothing of a person to be seen: nobody to be found
        people = [person for person in rendered.people if person.box]
        targets = [target(person) for person in people]
        found = detectors.find(rendered.image)
        bodies = []
        if predictor is not None:
            bodies = body_errors(
                predictor, rendered.image, rendered.focal, found[EVERYBODY], targets, people
            )
        looked.append(Picture(rendered.image, targets, found, people, bodies))
    return looked


def target(person: Person) -> Target:
    """Return what is to be found of a rendered person."""
    counts = person.visible >= MIN_VISIBLE and person.box[3] >= MIN_HEIGHT
    return Target(person.box, person.whole, counts)


def look_at_photos(
    detectors: Detectors, photos: Iterable[tuple[UInt8[np.ndarray, "h w 3"], list[Target]]]
) -> list[Picture]:
    """Show real photos to the detectors."""
    return [Picture(image, targets, detectors.find(image)) for image, targets in photos]


def scores(pictures: Sequence[Picture]) -> dict[str, dict[str, float]]:
    """Return the counts of each detector."""
    result = {name: Score() for name in (EVERYBODY, BLAZEPOSE)}
    for picture in pictures:
        for name, score in result.items():
            score.add(picture.found[name], picture)
    return {name: score.numbers() for name, score in result.items()}


def recall_of_bins(pictures: Sequence[Picture]) -> dict[str, dict[str, list[int]]]:
    """Return found people and all, of both detectors, by how large and how visible they are."""
    rows = {name: [] for name in (EVERYBODY, BLAZEPOSE)}
    for picture in pictures:
        for name, people in rows.items():
            hit = {number for _, number in match(picture.found[name], picture.targets).hits}
            people += [
                (person.box[3], person.visible, number in hit)
                for number, person in enumerate(picture.people)
                if picture.targets[number].counts
            ]
    result = {}
    for column, (what, bounds) in enumerate(BINS.items()):
        for low, high in zip(bounds, bounds[1:], strict=False):
            key = f"{what} {low:g} to {high:g}" if high < np.inf else f"{what} from {low:g}"
            result[key] = {
                name: [sum(chosen), len(chosen)]
                for name, people in rows.items()
                for chosen in [[row[2] for row in people if low <= row[column] < high]]
            }
    return result


def try_thresholds(
    both: Mapping[str, PersonDetector], halves: dict[str, list[Picture]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the counts of each detector by its threshold."""
    result = {name: {} for name in halves}
    for half, pictures in halves.items():
        for name, thresholds in THRESHOLDS.items():
            for threshold in tqdm(thresholds, desc=f"{half}, {name}", disable=None):
                score = Score()
                for picture in pictures:
                    score.add(both[name].detect(picture.image, threshold), picture)
                result[half][f"{name} {threshold:.2f}"] = score.numbers()
    return result


def print_scores(result: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a row for each half and each way."""
    print(
        f"{'':32}{'people':>8}{'found':>7}{'false':>7}{'recall':>8}{'precision':>11}{'first':>10}"
    )
    for half, ways in result.items():
        for name, n in ways.items():
            print(
                f"{half + ', ' + name:32}{n['people']:8d}{n['found']:7d}{n['false']:7d}"
                f"{n['recall']:8.3f}{n['precision']:11.3f}{n['first']:6d}/{n['pictures']}"
            )


def bodies_of(halves: Mapping[str, Sequence[Picture]]) -> dict[str, dict[str, float]]:
    """Return the errors of the bodies in each half that has any."""
    errors = {
        name: [error for picture in pictures for error in picture.bodies]
        for name, pictures in halves.items()
    }
    return {name: summary(found) for name, found in errors.items() if found}


def print_bodies(bodies: dict[str, dict[str, float]]) -> None:
    """Print the errors of the bodies in each half."""
    for name, numbers in bodies.items():
        values = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        print(f"{name}, bodies: {values}")


def print_bins(bins: dict[str, dict[str, list[int]]]) -> None:
    """Print how many of whom both detectors find."""
    for key, counts in bins.items():
        found = ", ".join(f"{name} {hits} of {total}" for name, (hits, total) in counts.items())
        print(f"{key:24}{found}")


def print_thresholds(result: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a row for each threshold."""
    print("Thresholds:")
    print_scores(result)


def draw_sheet(pictures: Sequence[Picture]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the pictures in which the demo's detector makes most mistakes, in rows of five.

    Green: people who count; yellow: the others; red: the demo's detector; blue: BlazePose.
    """

    def mistakes(picture: Picture) -> int:
        matching = match(picture.found[EVERYBODY], picture.targets)
        missed = sum(target.counts for target in picture.targets) - len(matching.hits)
        return missed + len(matching.false)

    tiles = []
    for picture in sorted(pictures, key=mistakes, reverse=True)[:NUM_TILES]:
        zoom = TILE / max(picture.size)
        boxes = [(d.box, BLUE) for d in picture.found[BLAZEPOSE]]
        boxes += [(t.box, GREEN if t.counts else YELLOW) for t in picture.targets]
        boxes += [(d.box, RED) for d in picture.found[EVERYBODY]]
        tile = np.zeros((TILE, TILE, 3), np.uint8)
        small = cv2.resize(picture.image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        tile[: small.shape[0], : small.shape[1]] = small[:TILE, :TILE]
        for (left, top, width, height), color in boxes:
            corners = np.rint(np.array([left, top, left + width, top + height]) * zoom).astype(int)
            cv2.rectangle(tile, corners[:2].tolist(), corners[2:].tolist(), color, 1)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 5)
    return np.vstack([np.hstack(tiles[i : i + 5]) for i in range(0, len(tiles), 5)])


if __name__ == "__main__":
    sys.exit(main())
