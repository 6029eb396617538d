"""How far bodies of people who stand or walk lean from the vertical, and how bent their knees are.

`python -m benchmarks.upright --photos FOLDER --json FILE` shows the predictor photos and video
frames of people who plainly hold themselves upright. Estimated bodies should then stand along the
picture's vertical: the cameras are nearly level (in Sports2D's video, the edges of the shed and of
the houses say to 2 degrees in the picture, and to 3 in depth). `depth` is the lean towards the
camera or away from it (`away` with its sign, below 0 towards it), `sideways` that in the picture;
the line is that from the ankles' middle to the neck. People never stand quite straight: some
degrees remain in any case. The legs of the men on the roof and at the bus are nearly straight,
those of people who walk are not.

Parameters may be chosen with `--set choosing`; the default, `judging`, shows other people. The last
table says how far the projected bodies are from the landmarks that count.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from benchmarks.groups.photos import BUS, CHOOSING, PARK, Corners, GroupPhoto, read_photos
from benchmarks.harness import print_markdown, trained_weights, write
from benchmarks.posture import IMAGE_UP, angles, bends, keypoints_of, leans
from smpler.models.answers import Answer
from smpler.models.detectors import Detection
from smpler.models.detectors.landmarks import SIZES
from smpler.models.fitting import points_2d
from smpler.models.predictor import Predictor
from smpler.utils.flags import Parser, device_name, input_folder, output_file, program, weights_file
from smpler.utils.image import Box, CropWindow, read_image
from smpler.utils.joints import KEYPOINT_NAMES
from smpler.utils.paths import display

ROOF, LAWN = (0, 0, 1768, 450), (0, 450, 1768, 994)
"""Where the middles of the man and of the woman are in Sports2D's video, left to bottom, pixels."""
EVERY = 10
"""Frames of a video from one that is looked at to the next."""


@dataclass(frozen=True)
class Subject:
    """People of one kind of picture."""

    name: str
    in_wheels: tuple[GroupPhoto, ...] = ()
    """Corners within which their boxes have their middles."""
    in_folder: tuple[tuple[str, str], ...] = ()
    """Names and sha256 of photos of one person."""


def _frames(first: int, last: int, where: Corners) -> tuple[GroupPhoto, ...]:
    return tuple(GroupPhoto(PARK, frame, (where,)) for frame in range(first, last + 1, EVERY))


_AT_THE_BUS = next(photo.people[:2] for photo in CHOOSING if photo.source == BUS)
SETS = {
    "choosing": (
        Subject("man on a roof, from the front", _frames(0, 90, ROOF)),
        Subject("two men at a bus", (GroupPhoto(BUS, None, _AT_THE_BUS),)),
    ),
    "judging": (
        Subject("woman who walks, from the side", _frames(60, 180, LAWN)),
        Subject(
            "man who walks, from the front",
            in_folder=(
                ("im02.png", "c2a78ce76332b52d7cef4ac7f98eafaf2e2951e673d61d706099427db67fc509"),
            ),
        ),
    ),
}
"""Who stands or walks upright, chosen by looking at the pictures. Left out: whoever is cut off or
hidden below the knees, and a photo by a camera that looks down (im03.png of the same folder)."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write the numbers."""
    parser = Parser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=weights_file, help="default: the released weights")
    add("--device", type=device_name, default="cpu")
    add("--landmarks", choices=list(SIZES), help="BlazePose's network; default: as demo.py")
    add("--set", choices=list(SETS), default="judging", help="who is looked at")
    add("--wheels", type=input_folder, help="folder of wheels with pictures; others are downloaded")
    add("--photos", type=input_folder, help="folder of further photos; default: none")
    add("--json", type=output_file, help="file for the numbers")
    args = parser.parse_args(argv)
    checkpoint = trained_weights(args.checkpoint)
    predictor = Predictor.load(
        checkpoint, device=args.device, mirror=True, fit=True, landmarks=args.landmarks
    )
    if predictor.model.smpl.body.h36m_regressor is None:
        raise ValueError(f"The body of {display(checkpoint)} has no keypoint regressor.")
    people = {
        subject.name: list(people_of(subject, predictor, args.wheels, args.photos))
        for subject in SETS[args.set]
    }
    result = {"weights": display(checkpoint), "set": args.set}
    result["landmarks"] = predictor.detectors.landmark_size(quick=False)
    ways = {"network": Predictor(predictor.model, landmarks=args.landmarks), "fitted": predictor}
    fitted = []
    for name, seen in people.items():
        for way, predict in ways.items() if seen else ():
            answers = [person.answer(predict) for person in tqdm(seen, disable=None)]
            numbers = posture(torch.cat([keypoints_of(answer) for answer in answers]))
            result |= {f"{name}, {way}: {key}": value for key, value in numbers.items()}
            fitted += answers if way == "fitted" else []
    print_markdown(result)
    landmarks = to_landmarks(fitted)
    print_landmarks(landmarks)
    write(args.json, result | {"to landmarks": landmarks})
    return 0


@dataclass(frozen=True, eq=False)
class Person:
    """Someone in a picture."""

    image: UInt8[np.ndarray, "h w 3"]
    box: Box
    others: tuple[Box, ...]

    def answer(self, predictor: Predictor) -> Answer:
        """Return what a predictor says."""
        window = CropWindow.for_box(self.box)
        return predictor.look(self.image, [window], [self.box], self.others)


def people_of(
    subject: Subject, predictor: Predictor, wheels: Path | None, photos: Path | None
) -> Iterator[Person]:
    """Yield the people of a subject, in the boxes that the predictor finds.

    Args:
        subject: who.
        predictor: whose detector finds them.
        wheels: folder of wheels.
        photos: folder of photos; None leaves out those that are in no wheel.
    """
    detector = predictor.load_person_detector()
    for image, targets in read_photos(subject.in_wheels, wheels):
        found = detector.detect(image)
        for target in targets:
            yield from chosen(image, found, target.box)
    if photos is None:
        return
    for name, sha256 in subject.in_folder:
        path = photos / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; give --photos the folder that holds it.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path} is another photo than the one that was looked at.")
        image = read_image(path)
        yield from chosen(image, detector.detect(image), (0, 0, *image.shape[1::-1]))


def chosen(
    image: UInt8[np.ndarray, "h w 3"], found: Sequence[Detection], where: Box
) -> Iterator[Person]:
    """Yield the largest of the people whose boxes have their middles in a box, if any."""
    left, top, width, height = where

    def is_there(box: Box) -> bool:
        x, y = box[0] + box[2] / 2 - left, box[1] + box[3] / 2 - top
        return 0 <= x < width and 0 <= y < height

    boxes = [detection.box for detection in found]
    there = [box for box in boxes if is_there(box)]
    if there:
        box = max(there, key=lambda box: box[2] * box[3])
        yield Person(image, box, tuple(other for other in boxes if other is not box))


def posture(keypoints: Float[Tensor, "b 14 3"]) -> dict[str, float]:
    """Return how far people lean, and how bent their knees are; means over all, degrees."""

    def of(part: str) -> Float[Tensor, "b 2 3"]:
        return keypoints[:, [KEYPOINT_NAMES.index(f"{side}_{part}") for side in "LR"]]

    line = keypoints[:, KEYPOINT_NAMES.index("Neck")] - of("Ankle").mean(dim=1)
    up = IMAGE_UP.expand_as(line)
    away, sideways = leans(line, up).unbind(dim=1)
    return {
        "people": len(line),
        "lean": angles(line, up).mean().item(),
        "depth": away.abs().mean().item(),
        "away": away.mean().item(),
        "sideways": sideways.abs().mean().item(),
        "knees": bends(of("Hip"), of("Knee"), of("Ankle")).mean().item(),
    }


def to_landmarks(answers: Iterable[Answer]) -> dict[str, dict[str, float]]:
    """Return how far bodies' points are from the landmarks that count, percent of the crop's side.

    The points are seen by the photo's pinhole, as the overlay draws them. For each landmark: the
    median, the 95th percentile, and in how many people it counts.
    """
    away: dict[str, list[float]] = {}
    for answer in answers:
        evidence = answer.seen.evidence
        difference = points_2d(answer.people, evidence.names) - evidence.places
        percent = 50 * torch.linalg.vector_norm(difference, dim=-1)  # crops are from -1 to 1
        for values, weights in zip(percent.tolist(), evidence.weights.tolist(), strict=True):
            for name, value, weight in zip(evidence.names, values, weights, strict=True):
                if weight > 0:
                    away.setdefault(name, []).append(value)
    return {
        name: {
            "median": float(np.median(values)),
            "95 %": float(np.percentile(values, 95)),
            "count": len(values),
        }
        for name, values in away.items()
    }


def print_landmarks(landmarks: dict[str, dict[str, float]]) -> None:
    """Print a row for each landmark."""
    print("\n| body to landmark, % of the crop's side | median | 95 % | count |\n|---|---|---|---|")
    for name, values in landmarks.items():
        print(f"| {name} | {values['median']:.2f} | {values['95 %']:.2f} | {values['count']} |")


if __name__ == "__main__":
    sys.exit(main())
