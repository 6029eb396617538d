"""Arms drawn by rule: where the upper arm points in the chest's frame, then elbow and hand.

A direction is an elevation above the horizontal and an azimuth from sideways (0) to forward (90),
then raised forward about the line through the shoulders. The collar takes its share of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from datasets.anatomy import within_reach
from datasets.pose_draft import SIDES, Draft
from utils.joints import SMPL_NAMES

SYMMETRIC = 0.35
"""How often both arms do the same."""
COLLAR_SHARE = 0.25
"""Of the arm's elevation: the collar rises by a quarter of what the whole arm does."""


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
_SWINGING = tuple(_NAMES.index(name) for name in ("swing", "pump"))
_RULES = np.array(
    [(rule.elevation, rule.azimuth, rule.raised, rule.turn, rule.elbow) for rule in ARMS.values()]
)  # (rules, 5, 2)
_FREE = _NAMES.index("free")


def add_arms(draft: Draft, preferred: dict[str, float]) -> None:
    """Draw both arms; `preferred` says how often which rule holds, else it is any."""
    kinds = [_choose(draft, preferred) for _ in SIDES]
    kinds[1] = np.where(draft.rng.random(len(draft)) < SYMMETRIC, kinds[0], kinds[1])
    for kind in range(len(_NAMES)):  # who swings one arm swings both
        if kind in _SWINGING:
            kinds[1] = np.where(kinds[0] == kind, kind, kinds[1])
            kinds[0] = np.where(kinds[1] == kind, kind, kinds[0])
    both = draft.rng.standard_normal((len(draft), 5)).clip(-2.5, 2.5)
    same = (kinds[0] == kinds[1])[:, None]
    for side, kind in zip(SIDES, kinds, strict=True):
        own = draft.rng.standard_normal((len(draft), 5)).clip(-2.5, 2.5)
        deviation = np.where(same, 0.8 * both + 0.6 * own, own)
        mean, spread = np.moveaxis(_RULES[kind], 2, 0)
        _set_arm(draft, side, kind, mean + spread * deviation)


def _choose(draft: Draft, preferred: dict[str, float]) -> np.ndarray:
    weights = np.array([rule.weight for rule in ARMS.values()])
    weights *= (1 - sum(preferred.values())) / weights.sum()
    weights += [preferred.get(name, 0) for name in _NAMES]
    return draft.rng.choice(len(_NAMES), len(draft), p=weights / weights.sum())


def _set_arm(draft: Draft, side: str, kind: np.ndarray, drawn: Float[np.ndarray, "n 5"]) -> None:
    elevation, azimuth, raised, turn, elbow = drawn.T
    hips = {name: SMPL_NAMES.index(f"{name}_Hip") for name in SIDES}
    own, other = (-draft.angles[:, hips[name], 0] for name in (side, "R" if side == "L" else "L"))
    raised = raised + np.where(np.isin(kind, _SWINGING), 0.45 * (other - own), 0)
    direction = _direction(elevation, azimuth, raised)
    direction = np.where((kind == _FREE)[:, None], _anywhere(draft), direction)
    _point_upper_arm(draft, side, direction, turn)
    draft.put(f"{side}_Elbow", draft.around(0, 28), -np.abs(elbow))
    draft.put(f"{side}_Wrist", draft.around(0, 12), draft.around(0, 10), draft.around(-4, 20))
    draft.put(f"{side}_Hand", draft.around(0, 4), draft.around(0, 4), draft.around(-14, 14))


def _anywhere(draft: Draft) -> Float[np.ndarray, "n 3"]:
    """Draw directions that an upper arm reaches, evenly: of six, the first that it does."""
    tried = draft.rng.standard_normal((len(draft), 6, 3))
    tried /= np.linalg.norm(tried, axis=2, keepdims=True)
    return tried[np.arange(len(draft)), within_reach(tried).argmax(axis=1)]


def _direction(elevation, azimuth, raised) -> Float[np.ndarray, "n 3"]:
    """Return unit vectors: outwards, up, forward; angles in degrees."""
    up, around = np.deg2rad(elevation), np.deg2rad(azimuth)
    level = np.cos(up)
    pointing = np.stack([level * np.cos(around), np.sin(up), level * np.sin(around)], axis=1)
    return Rotation.from_rotvec(-np.deg2rad(raised)[:, None] * [1.0, 0, 0]).apply(pointing)


def _point_upper_arm(draft: Draft, side: str, direction: Float[np.ndarray, "n 3"], turn) -> None:
    """Set collar and shoulder so that the upper arm points there, turned about itself [degrees]."""
    elevation = np.rad2deg(np.arcsin(direction[:, 1]))
    forward = np.rad2deg(np.arctan2(direction[:, 2], direction[:, 0].clip(0.2))) * np.cos(
        np.deg2rad(elevation)
    )
    rise = (COLLAR_SHARE * (elevation + 15)).clip(-8, 32) + draft.around(0, 3)
    collar = np.stack([0 * rise, -0.18 * forward + draft.around(0, 4), rise], axis=1)
    draft.put(f"{side}_Collar", *collar.T)
    seen = Rotation.from_rotvec(np.deg2rad(collar)).inv().apply(direction)
    across = np.cross([1.0, 0, 0], seen)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.rad2deg(np.arctan2(length, seen[:, :1]))
    swing = across / np.maximum(length, 1e-9) * angle
    draft.put(f"{side}_Shoulder", turn, swing[:, 1], swing[:, 2])
