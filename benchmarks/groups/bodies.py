"""How well the bodies of people in rendered groups are estimated, and how well quality ranks them.

The predictor is asked for everybody whom its detector finds, with the picture's focal length, as
EXIF data would give it. Errors are of those who match someone who counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.stats import spearmanr

from benchmarks.groups.matching import Target, match
from benchmarks.groups.scenes import Person
from smpler.models.answers import LOW_QUALITY
from smpler.models.detectors import Detection, prominence
from smpler.models.predictor import MAX_PEOPLE, Predictor
from smpler.utils.image import CropWindow
from smpler.utils.metrics import HIPS, mpjpe, pa_mpjpe


@dataclass(frozen=True)
class BodyError:
    """Errors of one estimated body."""

    mpjpe: float
    """Millimetres, camera frame."""
    pa_mpjpe: float
    """Millimetres."""
    distance: float
    """Of the middle of the hips from the camera, by the true one."""
    quality: float
    fit: str


def body_errors(
    predictor: Predictor,
    image: UInt8[np.ndarray, "h w 3"],
    focal_length: float,
    detections: Sequence[Detection],
    targets: Sequence[Target],
    people: Sequence[Person],
) -> list[BodyError]:
    """Return the errors of the people in one picture.

    Args:
        predictor: that of the demo.
        image: RGB.
        focal_length: pixels.
        detections: whom the detector finds.
        targets: who is to be found.
        people: labels of the targets.
    """
    order = prominence(detections, (image.shape[1], image.shape[0]))[:MAX_PEOPLE]
    detections = [detections[number] for number in order]
    hits = match(detections, targets).hits
    if not hits:
        return []
    boxes = [detection.box for detection in detections]
    windows = [CropWindow.for_box(box) for box in boxes]
    answer = predictor.look(image, windows, boxes, focal_length=focal_length)
    found, known = (list(numbers) for numbers in zip(*hits, strict=True))
    keypoints = answer.people.estimate.keypoints_3d
    assert keypoints is not None
    keypoints = keypoints[found].double().cpu()
    labels = torch.from_numpy(np.stack([people[number].keypoints for number in known])).double()
    depths = (
        (points[:, HIPS, 2].mean(dim=1) + shift).numpy()
        for points, shift in (
            (keypoints, answer.people.translation[found, 2].double().cpu()),
            (labels, 0.0),
        )
    )
    return [
        BodyError(*(float(value) for value in values), fit=answer.fit[number])
        for number, *values in zip(
            found,
            1000 * mpjpe(keypoints, labels),
            1000 * pa_mpjpe(keypoints, labels),
            np.divide(*depths),
            answer.quality[found],
            strict=True,
        )
    ]


def summary(errors: Sequence[BodyError]) -> dict[str, float]:
    """Return means over people, and how well quality ranks them by their error."""
    of = {
        name: np.array([getattr(error, name) for error in errors])
        for name in ("mpjpe", "pa_mpjpe", "distance", "quality")
    }
    low = of["quality"] < LOW_QUALITY
    result = {
        "people": len(errors),
        "mpjpe_mm": of["mpjpe"].mean(),
        "pa_mpjpe_mm": of["pa_mpjpe"].mean(),
        "median_distance_error": np.median(np.abs(of["distance"] - 1)),
        "quality_rank_correlation": -spearmanr(of["quality"], of["mpjpe"]).statistic,
        "low_quality_share": low.mean(),
        "low_quality_mpjpe_mm": _mean(of["mpjpe"][low]),
        "other_mpjpe_mm": _mean(of["mpjpe"][~low]),
    }
    states = [error.fit for error in errors]
    result |= {f"fit {state}": states.count(state) for state in sorted(set(states))}
    return {name: float(value) for name, value in result.items()}


def _mean(values: Float[np.ndarray, "n"]) -> float:
    return float(values.mean()) if len(values) else float("nan")
