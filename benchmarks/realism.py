"""How real the open data engine's people look to a network that was trained on photos.

`python -m benchmarks.realism --json FILE` shows random people to BlazePose's landmark network. It
measures how many of them the network recognises as people where they are (`found`), and how many
joints it sees within 0.2 torso lengths of the label (PCK@0.2). The network is given the person's
place, as in the next frame of a video; `detected` counts those whom it finds by BlazePose's person
detector instead.

The main numbers are of 500 people who are alone and in full view: joints that are hidden or cut off
would be lost in real photos too, and say nothing of how real the people look. The crops of the
stream between them are judged as well; numbers of all crops end with `_of_all`. Numbers that end
with `_of_upright` are of those of the 500 who neither lie nor stand on their hands, as the detector
is poor at both.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from benchmarks.harness import write
from benchmarks.judges.landmarks import LandmarkJudge, errors_in_torsos, pck
from smpler.datasets.engine.poses.sampler import VERSIONS, PoseSampler
from smpler.datasets.engine.stream import SPLITS, SyntheticPeople
from smpler.models.body import open_body
from smpler.models.detectors import Landmarks
from smpler.models.detectors.landmarks import SEEN, SEEN_KEYPOINTS
from smpler.utils.flags import (
    Parser,
    input_file,
    output_file,
    output_folder,
    output_png,
    positive,
    program,
    whole,
)
from smpler.utils.image import CROP_SIZE, write_image
from smpler.utils.paths import display

NUM_WORST = 40
"""Crops that the picture of the worst shows."""
REACH_BEYOND_JOINTS = 1.15
"""Radius of the circle round the whole person, with hands and feet, over that round the joints."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """One crop and the judge's answer; pixels of the crop."""

    image: UInt8[np.ndarray, "s s 3"]
    labels: Float[np.ndarray, "12 2"]
    shown: Bool[np.ndarray, "12"]
    """Inside the photo, and not behind someone or something else."""
    alone: bool
    """Whether no other people or objects are in the scene."""
    errors: Float[np.ndarray, "12"] | None
    """In torso lengths; None if the person is not found."""
    keypoints: Float[np.ndarray, "12 2"] | None
    detected: bool
    """Whether judge and detector find the person without being given the place."""

    @property
    def clear(self) -> bool:
        """Whether the person is alone and in full view."""
        return self.alone and bool(self.shown.all())

    @property
    def upright(self) -> bool:
        """Whether the trunk is within 60 degrees of the vertical, and ankles are below hips."""
        shoulders, hips, ankles = (
            self.labels[[SEEN.index(f"{side}_{name}") for side in "LR"]].mean(axis=0)
            for name in ("Shoulder", "Hip", "Ankle")
        )
        trunk = hips - shoulders
        return bool(trunk[1] > 0.5 * np.linalg.norm(trunk) and ankles[1] > hips[1])


class Crops(IterableDataset):
    """The stream's samples in their order, with `alone`; workers take turns."""

    def __init__(self, stream: SyntheticPeople):
        self.stream = stream

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in count(start, step):
            alone = len(self.stream.scene(index).actors) == 1
            yield self.stream.sample(index) | {"alone": alone}


@program
def main(argv: list[str] | None = None) -> int:
    """Judge, print, write."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--device", choices=["cpu"], default="cpu", help="the judge runs on the CPU")
    add("--num", type=positive, default=500, help="people alone and in full view")
    add("--split", choices=SPLITS, default="train")
    add("--seed", type=whole, default=0)
    add("--pose_version", type=int, choices=VERSIONS, default=2, help="version of the poses")
    add("--num_workers", type=whole, default=2)
    add("--cache", type=output_folder, help="folder for the judge's network")
    add("--wheel", type=input_file, help="mediapipe's wheel; downloaded if needed and not given")
    add("--out", type=output_png, help="picture of the worst crops")
    add("--json", type=output_file, help="the numbers")
    args = parser.parse_args(argv)
    judge = LandmarkJudge.load(args.cache, args.wheel)
    # without training's turns and colour noise: that is what photos are like
    stream = SyntheticPeople(
        open_body(),
        poses=PoseSampler(version=args.pose_version),
        split=args.split,
        seed=args.seed,
        options=("visible",),
        augment=False,
    )
    verdicts = judge_people(judge, stream, args.num, args.num_workers)
    flags = {name: getattr(args, name) for name in ("split", "seed", "pose_version")}
    result = summarize(verdicts) | flags
    print_table(result)
    write(args.json, result)
    if args.out:
        write_image(args.out, draw_worst(verdicts))
        print(f"worst crops: {display(args.out)}")
    return 0


def judge_people(
    judge: LandmarkJudge, stream: SyntheticPeople, num: int, num_workers: int
) -> list[Verdict]:
    """Judge the stream's crops until `num` clear ones were among them."""
    verdicts, progress = [], tqdm(total=num, disable=None)
    for sample in DataLoader(Crops(stream), num_workers=num_workers, batch_size=None):
        verdicts.append(give_verdict(judge, sample))
        progress.update(verdicts[-1].clear)
        num -= verdicts[-1].clear
        if not num:
            return verdicts


def give_verdict(judge: LandmarkJudge, sample: dict) -> Verdict:
    """Show one crop to the judge, with and without the person's place."""
    image = np.ascontiguousarray((sample["image"].numpy().transpose(1, 2, 0) * 255).round())
    image = image.astype(np.uint8)
    labels = (sample["keypoints_2d"].numpy()[SEEN_KEYPOINTS, :2] + 1) / 2 * CROP_SIZE
    shown = sample["visible"].numpy()[SEEN_KEYPOINTS]
    hips, shoulders = (
        labels[[SEEN.index(f"{side}_{name}") for side in "LR"]].mean(axis=0)
        for name in ("Hip", "Shoulder")
    )
    radius = REACH_BEYOND_JOINTS * float(np.linalg.norm(labels - hips, axis=1).max())
    errors, keypoints = recognised(judge.follow(image, hips, shoulders - hips, radius), labels)
    detected = recognised(judge.find(image, near=hips), labels)[0] is not None
    return Verdict(image, labels, shown, sample["alone"], errors, keypoints, detected)


def recognised(
    person: Landmarks | None, labels: Float[np.ndarray, "12 2"]
) -> tuple[Float[np.ndarray, "12"] | None, Float[np.ndarray, "12 2"] | None]:
    """Return errors and joints; None if the judge sees nobody, or someone elsewhere."""
    if person is None:
        return None, None
    errors = errors_in_torsos(person, labels, CROP_SIZE)
    return (errors, person.keypoints) if np.median(errors) <= 1 else (None, None)


def summarize(verdicts: list[Verdict]) -> dict:
    """Return shares of people found and of joints that agree: of clear crops, and of all."""
    clear = [verdict for verdict in verdicts if verdict.clear]
    upright = [verdict for verdict in clear if verdict.upright]
    result = {}
    for suffix, chosen in (("", clear), ("_of_upright", upright), ("_of_all", verdicts)):
        result[f"people{suffix}"] = len(chosen)
        found = [verdict for verdict in chosen if verdict.errors is not None]
        result[f"found{suffix}"] = len(found) / max(len(chosen), 1)
        detected = sum(verdict.detected for verdict in chosen)
        result[f"detected{suffix}"] = detected / max(len(chosen), 1)
        if found:
            errors, shown = (np.stack([getattr(v, f) for v in found]) for f in ("errors", "shown"))
            result[f"pck{suffix}"] = pck(errors, shown)
            result[f"median_error{suffix}"] = float(np.median(errors[shown]))
            for name in {name[2:]: None for name in SEEN}:  # left and right together
                columns = [i for i, judged in enumerate(SEEN) if judged[2:] == name]
                result[f"pck_{name}{suffix}"] = pck(errors[:, columns], shown[:, columns])
    return result


def print_table(result: dict) -> None:
    """Print the numbers of clear, of upright and of all people."""
    columns = ("", "_of_upright", "_of_all")
    print(f"{'':16}{'clear':>8}{'upright':>8}{'all':>8}")
    print(f"{'people':16}" + "".join(f"{result['people' + c]:8d}" for c in columns))
    for key in (key for key in result if f"{key}_of_all" in result and key != "people"):
        values = "".join(f"{result.get(key + column, float('nan')):8.3f}" for column in columns)
        print(f"{key:16}{values}")


def draw_worst(verdicts: list[Verdict]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the worst clear crops, people not found first: labels green, judge's joints red."""

    def badness(verdict: Verdict) -> float:
        if verdict.errors is None:
            return np.inf
        return float(np.where(verdict.shown, verdict.errors > 0.2, 0).sum())

    tiles = []
    clear = [verdict for verdict in verdicts if verdict.clear]
    for verdict in sorted(clear, key=badness, reverse=True)[:NUM_WORST]:
        tile = verdict.image.copy()
        dots = [(verdict.labels, (0, 255, 0))]
        if verdict.keypoints is not None:
            dots.append((verdict.keypoints, (255, 0, 0)))
        for points, color in dots:
            for x, y in points:
                cv2.circle(tile, (round(float(x)), round(float(y))), 2, color, cv2.FILLED)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
    return np.vstack([np.hstack(tiles[i : i + 8]) for i in range(0, len(tiles), 8)])


if __name__ == "__main__":
    sys.exit(main())
