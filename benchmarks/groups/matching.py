"""Detections beside people whose boxes are known: who is found, what is wrong, who comes first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from smpler.models.detectors import Detection
from smpler.models.detectors.person import BlazePoseDetection
from smpler.utils.image import Box, iou

MIN_IOU, MIN_SQUARE_IOU = 0.4, 0.3
"""Intersection over union from which on a box is a hit: with the visible body's box; of BlazePose's
squares with the square round the whole body."""
SQUARE_PER_BODY = 1.05
"""Side of BlazePose's square in longer sides of the whole body's box: the median of 56 people who
are not cut off in photos of groups; it ranges from 0.91 to 1.40."""
CLEARLY_LARGER = 1.1
"""Area of a box by another's, from which on the eye sees that it is larger."""


@dataclass(frozen=True)
class Target:
    """Someone in a picture."""

    box: Box
    """Of the visible body, pixels."""
    whole: Box | None = None
    """Of the whole body; None where it is not known, and the visible part stands for it."""
    counts: bool = True
    """False: found or not, it is neither right nor wrong."""


@dataclass(frozen=True)
class Matching:
    """What became of the detections of one picture."""

    hits: tuple[tuple[int, int], ...]
    """Detection and target, of those targets that count."""
    false: tuple[int, ...]
    """Detections of nobody."""


def match(detections: Sequence[Detection], targets: Sequence[Target]) -> Matching:
    """Assign detections to targets, one to one.

    Targets that count are assigned first, as many as possible and then by the overlap. What is
    left over may hit those that do not count.
    """
    strength = np.array([[_hit(d, t) for t in targets] for d in detections])
    strength = strength.reshape(len(detections), len(targets))
    counting = [number for number, target in enumerate(targets) if target.counts]
    rows, columns = linear_sum_assignment(-strength[:, counting])
    hits = tuple(
        (int(row), counting[column])
        for row, column in zip(rows, columns, strict=True)
        if strength[row, counting[column]] > 0
    )
    rest = sorted(set(range(len(detections))) - {row for row, _ in hits})
    ignored = [number for number in range(len(targets)) if number not in counting]
    rows, columns = linear_sum_assignment(-strength[np.ix_(rest, ignored)])
    excused = {
        rest[row]
        for row, column in zip(rows, columns, strict=True)
        if strength[rest[row], ignored[column]] > 0
    }
    return Matching(hits, tuple(number for number in rest if number not in excused))


def _hit(detection: Detection, target: Target) -> float:
    """Return 0 unless the box is a hit; else 1 + the overlap, so that every hit counts most."""
    if isinstance(detection, BlazePoseDetection):
        overlap = iou(detection.box, square_round(target.whole or target.box))
        least = MIN_SQUARE_IOU
    else:
        overlap, least = iou(detection.box, target.box), MIN_IOU
    return 1 + overlap if overlap >= least else 0.0


def square_round(box: Box) -> Box:
    """Return the square that BlazePose draws round a whole body."""
    left, top, width, height = box
    side = SQUARE_PER_BODY * max(width, height)
    return left + (width - side) / 2, top + (height - side) / 2, side, side


def is_prominent(number: int | None, targets: Sequence[Target], size: tuple[int, int]) -> bool:
    """Say whether nobody is both nearer to the middle of the picture and clearly larger.

    Args:
        number: of a target that counts; None for nobody.
        targets: those that do not count do not compete.
        size: width and height of the picture, pixels.
    """
    if number is None:
        return False
    middle = np.array(size) / 2
    # (n, 2) each: corners and sizes
    corner, extent = np.split(np.array([target.box for target in targets]), 2, axis=1)
    away = np.linalg.norm(corner + extent / 2 - middle, axis=1)
    area = extent.prod(axis=1)
    counts = np.array([target.counts for target in targets])
    rivals = counts & (away < away[number]) & (area > CLEARLY_LARGER * area[number])
    return not rivals.any()
