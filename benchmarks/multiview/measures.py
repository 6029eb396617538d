"""What is wrong with estimated joints, whose true places in space are known.

All joints are those of `SEEN`, in the camera frame and in metres.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.posture import angles, bends, leans
from smpler.models.detectors.landmarks import SEEN
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.metrics import pa_mpjpe

PCK_LIMIT = 0.15
"""Metres up to which a joint counts as found (Mehta et al., 3DV 2017)."""
MAX_TRUNK_LEAN = 30.0
"""Degrees from the vertical up to which a trunk counts as upright."""
MAX_STRAIGHT = 15.0
"""Degrees up to which a knee counts as straight."""
PARTS = ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
_SIDES = {part: [SEEN.index(f"{side}_{part}") for side in "LR"] for part in PARTS}
_LEGS = [_SIDES[part] for part in ("Hip", "Knee", "Ankle")]

Numbers = dict[str, float]


def measured(
    found: Float[Tensor, "b 12 3"],
    known: Float[Tensor, "b 12 3"],
    up: Float[Tensor, "b 3"],
    scatter: Float[Tensor, "b 12"] | None = None,
) -> Numbers:
    """Return all measures of some views.

    Args:
        found: as estimated.
        known: as triangulated.
        up: the world's upward direction.
        scatter: how far off the estimate says that its joints are, metres; None: it does not.
    """
    numbers = errors_mm(found, known) | lean_errors(found, known, up) | knee_errors(found, known)
    return numbers | (scatter_ranks(scatter, found, known) if scatter is not None else {})


def errors_mm(found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"]) -> Numbers:
    """Return how far joints are from where they should be.

    `mpjpe`: mean distance [mm], the hips' middles in one place. `mpjpe-scaled`: the same after the
    best scaling about them, as nobody's size shows in a picture (N-MPJPE; Rhodin et al., CVPR
    2018). `mpjpe-pa`: after the best rotation, translation and scaling. `3dpck`: percent of the
    joints within PCK_LIMIT, the hips' middles in one place.
    """
    centred, right = on_hips(found), on_hips(known)
    scale = (centred * right).sum(dim=(1, 2)) / centred.square().sum(dim=(1, 2))
    distances = torch.linalg.vector_norm(centred - right, dim=-1)
    scaled = torch.linalg.vector_norm(scale[:, None, None] * centred - right, dim=-1)
    return {
        "mpjpe": 1000 * distances.mean().item(),
        "mpjpe-scaled": 1000 * scaled.mean().item(),
        "mpjpe-pa": 1000 * pa_mpjpe(found, known).mean().item(),
        "3dpck": 100 * (distances <= PCK_LIMIT).double().mean().item(),
    }


def lean_errors(
    found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"], up: Float[Tensor, "b 3"]
) -> Numbers:
    """Return how wrongly bodies lean, in degrees, over the views whose true trunk is upright.

    A body leans as the line from the middle of the ankles to that of the shoulders. `lean`: mean
    angle between the estimated line and the true one. `lean-depth`, `lean-sideways`: mean absolute
    difference of the angles of `leans`. `lean-away`: mean difference of the first; an estimate that
    falls towards the camera makes it negative. `upright`: number of the views.
    """
    chosen = is_upright(known, up)
    lines = [line_up(x)[chosen] for x in (found, known)]
    wrong = leans(lines[0], up[chosen]) - leans(lines[1], up[chosen])
    wrong = (wrong + 180) % 360 - 180
    return {
        "upright": int(chosen.sum()),
        "lean": angles(*lines).mean().item(),
        "lean-depth": wrong[:, 0].abs().mean().item(),
        "lean-away": wrong[:, 0].mean().item(),
        "lean-sideways": wrong[:, 1].abs().mean().item(),
    }


def is_upright(known: Float[Tensor, "b 12 3"], up: Float[Tensor, "b 3"]) -> Bool[Tensor, "b"]:
    """Say whose trunk, from the hips to the shoulders, is within MAX_TRUNK_LEAN of the vertical."""
    trunk = middle(known, "Shoulder") - middle(known, "Hip")
    return angles(trunk, up) <= MAX_TRUNK_LEAN


def knee_errors(found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"]) -> Numbers:
    """Return how wrongly knees are bent, degrees.

    `knee`: mean absolute difference of the bend. `straight-knee`: mean estimated bend of the knees
    whose true bend is at most MAX_STRAIGHT; `straight-knee-true`: their true one; `straight-knees`:
    how many they are. Without any, the means are NaN.
    """
    of_both = [bends(*(x[:, joints] for joints in _LEGS)) for x in (found, known)]
    straight = of_both[1] <= MAX_STRAIGHT
    return {
        "knee": (of_both[0] - of_both[1]).abs().mean().item(),
        "straight-knees": int(straight.sum()),
        "straight-knee": of_both[0][straight].mean().item(),
        "straight-knee-true": of_both[1][straight].mean().item(),
    }


def axis_errors_mm(
    found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"]
) -> dict[str, Numbers]:
    """Return the root mean square error of each pair of joints along x, y and z, the depth [mm].

    The hips' middles are in one place. `all` is over all joints.
    """
    wrong = 1000 * (on_hips(found) - on_hips(known))
    groups = _SIDES | {"all": list(range(len(SEEN)))}
    return {
        part: {
            axis: wrong[:, joints, number].square().mean().sqrt().item()
            for number, axis in enumerate("xyz")
        }
        for part, joints in groups.items()
    }


def scatter_ranks(
    scatter: Float[Tensor, "b 12"], found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"]
) -> Numbers:
    """Return how well predicted scatters rank the true errors, [-1, 1], by Spearman's correlation.

    An error is a joint's distance from where it should be, the hips' middles in one place.
    `scatter-rank`: over all joints of all views; that wrists are worse than hips counts as known.
    `scatter-rank-within`: for each joint over the views, the mean of the joints.
    """
    errors = torch.linalg.vector_norm(on_hips(found) - on_hips(known), dim=-1)
    within = [_rank_correlation(scatter[:, n], errors[:, n]) for n in range(len(SEEN))]
    return {
        "scatter-rank": _rank_correlation(scatter.flatten(), errors.flatten()),
        "scatter-rank-within": float(np.mean(within)),
    }


def scatter_of_seen(scatter: Float[Tensor, "b 24"]) -> Float[Tensor, "b 12"]:
    """Return the scatters of `SEEN` among those of SMPL's joints."""
    return scatter[:, [SMPL_NAMES.index(name) for name in SEEN]]


def line_up(joints: Float[Tensor, "b 12 3"]) -> Float[Tensor, "b 3"]:
    """Return the line from the middle of the ankles to the middle of the shoulders."""
    return middle(joints, "Shoulder") - middle(joints, "Ankle")


def on_hips(joints: Float[Tensor, "b 12 3"]) -> Float[Tensor, "b 12 3"]:
    """Return the joints relative to the middle of the hips."""
    return joints - middle(joints, "Hip")[:, None]


def middle(joints: Float[Tensor, "b 12 3"], part: str) -> Float[Tensor, "b 3"]:
    """Return the middle of the left and the right one."""
    return joints[:, _SIDES[part]].mean(dim=1)


def _rank_correlation(one: Float[Tensor, "n"], other: Float[Tensor, "n"]) -> float:
    return float(spearmanr(one.cpu().numpy(), other.cpu().numpy()).statistic)
