"""Arms drawn by rule: where the upper arm points in the chest's frame, then elbow and hand.

A direction is an elevation above the horizontal and an azimuth from sideways (0) to forward (90).
It is then turned about the line through the shoulders, which raises a hanging arm forward. The
collar takes a share of the elevation.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses.anatomy import within_reach
from smpler.datasets.engine.poses.draft import SIDES, Draft
from smpler.utils.joints import SMPL_NAMES

SYMMETRIC = 0.35
"""How often both arms do the same."""
COLLAR_SHARE = 0.25
"""Share of the whole arm's elevation that the collar rises by."""


@dataclass(frozen=True)
class ArmRule:
    """Means and spreads [degrees] of one thing that arms do."""

    weight: float
    elevation: tuple[float, float]
    azimuth: tuple[float, float]
    raised: tuple[float, float] = (0, 0)
    turn: tuple[float, float] = (0, 20)
    """About the upper arm: positive turns a bent forearm inwards."""
    elbow: tuple[float, float] = (20, 15)


ARMS = {
    "hang": ArmRule(0.27, (-75, 4.5), (20, 22), (3, 12), (8, 14), (16, 12)),
    "gesture": ArmRule(0.20, (-60, 11), (30, 25), (12, 20), (18, 26), (75, 32)),
    "forward": ArmRule(0.08, (-12, 20), (78, 16), (0, 0), (5, 30), (30, 26)),
    "side": ArmRule(0.08, (-4, 18), (4, 18), (0, 0), (-15, 35), (28, 28)),
    "up": ArmRule(0.09, (60, 18), (30, 30), (0, 0), (-15, 28), (32, 30)),
    "to_head": ArmRule(0.05, (5, 28), (45, 25), (0, 0), (-55, 22), (128, 12)),
    "on_hip": ArmRule(0.06, (-46, 7), (-14, 8), (0, 0), (52, 12), (92, 11)),
    "folded": ArmRule(0.05, (-56, 7), (55, 15), (0, 0), (52, 13), (98, 13)),
    "behind": ArmRule(0.03, (-62, 7), (-40, 10), (0, 0), (62, 13), (55, 18)),
    "free": ArmRule(0.09, (0, 0), (0, 0), (0, 0), (0, 42), (42, 36)),
    "down": ArmRule(0.0, (-16, 10), (84, 6), (0, 0), (0, 14), (9, 8)),
    "swing": ArmRule(0.0, (-75, 4), (12, 12), (0, 7), (6, 10), (18, 10)),
    "pump": ArmRule(0.0, (-70, 6), (4, 10), (-6, 10), (18, 12), (88, 16)),
}
_NAMES = tuple(ARMS)
_SWINGING = np.isin(_NAMES, ("swing", "pump"))
_FREE = _NAMES.index("free")
_WEIGHTS = np.array([rule.weight for rule in ARMS.values()])
_RULES = np.array(
    [(rule.elevation, rule.azimuth, rule.raised, rule.turn, rule.elbow) for rule in ARMS.values()]
)  # (rules, 5, 2)
_HIPS, _COLLARS, _SHOULDERS, _ELBOWS = (
    [SMPL_NAMES.index(f"{side}_{name}") for side in SIDES]
    for name in ("Hip", "Collar", "Shoulder", "Elbow")
)


def add_arms(draft: Draft, preferred: dict[str, float]) -> None:
    """Draw both arms.

    Args:
        preferred: rule -> how often it is used; else the rule is drawn by the weights in ARMS.
    """
    rule = _choose_rules(draft, preferred)
    # (n, arms, numbers of a rule)
    both = draft.rng.standard_normal((len(draft), 1, 5)).clip(-2.5, 2.5)
    own = draft.rng.standard_normal((len(draft), 2, 5)).clip(-2.5, 2.5)
    same = (rule[:, :1] == rule[:, 1:])[..., None]
    deviation = np.where(same, 0.8 * both + 0.6 * own, own)
    mean, spread = _RULES[rule, :, 0], _RULES[rule, :, 1]  # (n, 2, 5)
    elevation, azimuth, raised, turn, elbow = np.moveaxis(mean + spread * deviation, 2, 0)
    flexion = -draft.angles[:, _HIPS, 0]
    raised = raised + np.where(_SWINGING[rule], 0.45 * (flexion[:, ::-1] - flexion), 0)
    direction = _direction(elevation, azimuth, raised)
    direction = np.where((rule == _FREE)[..., None], _anywhere(draft), direction)
    _point_upper_arms(draft, direction, turn)
    draft.angles[:, _ELBOWS, 1] = -np.abs(elbow)
    for place, side in enumerate(SIDES):
        draft.angles[:, _ELBOWS[place], 0] = draft.around(0, 28)
        draft.put(f"{side}_Wrist", draft.around(0, 12), draft.around(0, 10), draft.around(-4, 20))
        draft.hand(side)


def _choose_rules(draft: Draft, preferred: dict[str, float]) -> Int[np.ndarray, "n 2"]:
    """Draw the number of each arm's rule; who swings one arm swings both."""
    share = _WEIGHTS * (1 - sum(preferred.values())) / _WEIGHTS.sum()
    share = share + [preferred.get(name, 0.0) for name in _NAMES]
    drawn = draft.rng.random((len(draft), 3))
    rule = np.searchsorted(share.cumsum()[:-1], drawn[:, :2], side="right")
    rule[:, 1] = np.where(drawn[:, 2] < SYMMETRIC, rule[:, 0], rule[:, 1])
    rule[:, 1] = np.where(_SWINGING[rule[:, 0]], rule[:, 0], rule[:, 1])
    rule[:, 0] = np.where(_SWINGING[rule[:, 1]], rule[:, 1], rule[:, 0])
    return rule


def _anywhere(draft: Draft) -> Float[np.ndarray, "n 2 3"]:
    """Draw directions evenly among those that an upper arm reaches: the first of six tries."""
    tried = draft.rng.standard_normal((6, len(draft), 2, 3))
    tried /= np.sqrt((tried * tried).sum(axis=3, keepdims=True))
    first = within_reach(tried).argmax(axis=0)[None, ..., None]
    return np.take_along_axis(tried, first, axis=0)[0]


def _direction(elevation, azimuth, raised) -> Float[np.ndarray, "n 2 3"]:
    """Return unit vectors: outwards, up, forward; angles in degrees."""
    elevation, azimuth, raised = (np.deg2rad(x) for x in (elevation, azimuth, raised))
    level, up = np.cos(elevation), np.sin(elevation)
    outwards, forward = level * np.cos(azimuth), level * np.sin(azimuth)
    cos, sin = np.cos(raised), np.sin(raised)
    return np.stack([outwards, cos * up + sin * forward, cos * forward - sin * up], axis=-1)


def _point_upper_arms(draft: Draft, direction: Float[np.ndarray, "n 2 3"], turn) -> None:
    """Set collars and shoulders so that the upper arms point there, turned about themselves."""
    outwards, up, forward = np.moveaxis(direction, 2, 0)
    elevation = np.rad2deg(np.arcsin(up.clip(-1, 1)))
    ahead = np.rad2deg(np.arctan2(forward, outwards.clip(0.2))) * np.sqrt((1 - up**2).clip(0))
    spread = np.stack([draft.normal() for _ in range(4)], axis=1).reshape(-1, 2, 2)
    rise = (COLLAR_SHARE * (elevation + 15)).clip(-8, 32) + 3 * spread[..., 0]
    collar = np.stack([0 * rise, -0.18 * ahead + 4 * spread[..., 1], rise], axis=-1)
    draft.angles[:, _COLLARS] = collar
    turned = Rotation.from_rotvec(np.deg2rad(collar).reshape(-1, 3)).inv()
    x, y, z = np.moveaxis(turned.apply(direction.reshape(-1, 3)).reshape(direction.shape), 2, 0)
    length = np.hypot(y, z)  # of the cross product of x and the direction: (0, -z, y)
    angle = np.rad2deg(np.arctan2(length, x)) / np.maximum(length, 1e-9)
    draft.angles[:, _SHOULDERS] = np.stack([turn, -z * angle, y * angle], axis=-1)
