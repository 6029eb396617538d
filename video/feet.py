"""Feet that stand: whose landmarks stay where they are in the picture may not slide in space."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smpler.models.fitting import Evidence
from smpler.models.placement import Placement
from smpler.utils.joints import SMPL_NAMES
from smpler.video.splines import Spline

ANKLES = ("L_Ankle", "R_Ankle")
STANDING_SPEED = 0.25
"""Metres a second across the picture, at which a foot counts by half as standing."""
SLIDE_SCATTER = 0.1
"""How fast standing feet are taken to move, metres a second."""
_JOINTS = [SMPL_NAMES.index(name) for name in ANKLES]


def standing(
    people: Placement, evidence: Evidence, spline: Spline, fps: float
) -> Float[Tensor, "t 2"]:
    """Return how surely each foot stands in each frame, [0, 1]; 0 where it is not seen.

    Args:
        people: a person in each frame, who says how far away the feet are.
        evidence: of the same frames; without landmarks of the ankles, no foot stands.
        spline: smooths the landmarks' ways.
        fps: of the frames.
    """
    count = len(people.translation)
    if any(name not in evidence.names for name in ANKLES):
        return torch.zeros(count, 2).to(people.translation)
    columns = [evidence.names.index(name) for name in ANKLES]
    slopes = people.pinhole.slopes(evidence.places)[:, columns].double().cpu().numpy()
    weights = evidence.weights[:, columns].double().cpu().numpy()
    depth = (people.estimate.joints[:, _JOINTS, 2] + people.translation[:, 2:]).double().cpu()
    chances = []
    for foot in range(2):
        way = spline.fitted(slopes[:, foot], weights[:, foot]) if weights[:, foot].any() else None
        if way is None or count < 2:
            chances.append(np.zeros(count))
            continue
        speed = np.linalg.norm(np.gradient(way, axis=0), axis=1) * fps * depth[:, foot].numpy()
        chances.append(weights[:, foot] / (1 + (speed / STANDING_SPEED) ** 4))
    return torch.from_numpy(np.stack(chances, axis=1)).to(people.translation)


def sliding(people: Placement, chances: Float[Tensor, "t 2"], fps: float) -> Float[Tensor, ""]:
    """Return what it costs that standing feet move, in squared scatters."""
    feet = people.estimate.joints[:, _JOINTS] + people.translation[:, None]
    speed = (feet[1:] - feet[:-1]).square().sum(dim=-1) * fps**2
    both = torch.minimum(chances[1:], chances[:-1])
    return (both * speed).sum() / SLIDE_SCATTER**2
