"""Poses drawn by rule: one function for each thing that people do.

A rule writes legs, trunk, head and tilt of a `Draft`, in degrees; both sides use the same terms:
flexion, abduction, turn. Arms are drawn on their own, by the direction of the upper arm
(`smpler.datasets.engine.poses.arms`), because most things can be done with any arms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from smpler.datasets.engine.poses.draft import SIDES, Draft

THIGH, SHIN = 0.385, 0.435
"""Lengths of the mean adult's bones [m]."""
ANKLE_ABOVE_SEAT = 0.04
"""How much higher the ankle is than the hip when seat and heel are on the ground [m]."""


def stand(draft: Draft) -> None:
    """Stand, the weight on one leg or both."""
    apart = draft.around(4, 5)
    draft.leg("L", draft.around(4, 6), draft.around(5, 5), apart)
    relaxed = draft.rng.random(len(draft)) < 0.4
    bent = np.where(relaxed, draft.between(8, 28), 0)
    draft.leg("R", draft.around(4, 6) + bent, draft.around(5, 5) + 1.6 * bent, apart)
    draft.trunk(draft.around(3, 6), draft.around(0, 10), draft.around(0, 5))
    draft.head()


def walk(draft: Draft) -> None:
    """Walk or stride: legs in opposite phases, the knee bent most when the leg swings forward."""
    gait(draft, stride=draft.between(12, 32), lift=draft.between(20, 60), lean=4)
    draft.head(spread=0.9)


def run(draft: Draft) -> None:
    """Run: the same with more of everything."""
    gait(draft, stride=draft.between(28, 52), lift=draft.between(60, 115), lean=12)
    draft.head(-4, spread=0.7)


def gait(draft: Draft, stride, lift, lean: float) -> None:
    """Set the legs at a random phase of a step; the trunk turns against them."""
    phase = draft.between(0, 2 * np.pi)
    for side, at in (("L", phase), ("R", phase + np.pi)):
        swing = np.clip(np.cos(at - 0.4 * np.pi), 0, 1)  # most bent before the leg is in front
        forward = stride * np.sin(at) + 0.15 * stride + 0.3 * lift * swing + lean
        ankle = np.where(np.sin(at) < -0.4, 18, 0)
        draft.leg(side, forward, draft.around(7, 4) + lift * swing, draft.around(1, 2), ankle=ankle)
    draft.trunk(draft.around(lean, 5), -0.35 * stride * np.sin(phase), draft.around(0, 3))
    draft.tilt[:, 0] = draft.around(lean, 3)


def sit(draft: Draft) -> None:
    """Sit on a chair or a stool."""
    apart, shin = draft.around(10, 9), draft.around(0, 16)
    for side in SIDES:
        thigh = draft.around(86, 7)
        draft.leg(side, thigh, thigh + draft.around(shin, 9), apart)
    draft.trunk(draft.around(14, 14), draft.around(0, 14), draft.around(0, 7))
    draft.tilt[:, 0] = draft.around(-4, 9)
    draft.head()


def sit_on_ground(draft: Draft) -> None:
    """Sit on the ground, legs stretched, drawn up or crossed; heels on the ground."""
    crossed = draft.rng.random(len(draft)) < 0.35
    drawn_up, lean = draft.between(4, 60), draft.around(-8, 8)
    for side in SIDES:
        above = np.where(crossed, 6, (drawn_up + draft.around(0, 7)).clip(0, 60))  # the horizontal
        below = 90 - _arccos((THIGH * _cos(90 - above) - ANKLE_ABOVE_SEAT) / SHIN)
        knee = np.where(crossed, draft.around(116, 9), above + below)
        out = np.where(crossed, draft.around(40, 5), draft.around(9, 5))
        turn = np.where(crossed, draft.around(62, 5), 8)
        draft.leg(side, 90 + above + lean, knee, out, turn, 18)
    draft.trunk(draft.around(22, 12), draft.around(0, 12), draft.around(0, 6))
    draft.tilt[:, 0] = lean
    draft.head()


def squat(draft: Draft) -> None:
    """Squat, from half to all the way down."""
    depth, apart = draft.between(0.35, 1), draft.around(15, 8)
    for side in SIDES:
        flexion = 118 * (depth + draft.around(0, 0.05))
        draft.leg(side, flexion, 1.12 * flexion, apart, 14)
    draft.trunk(draft.around(22, 12), draft.around(0, 9), draft.around(0, 5))
    draft.head(-8)


def kneel(draft: Draft) -> None:
    """Kneel on one knee or both, upright or on the heels."""
    both, low = draft.rng.random(len(draft)) < 0.5, draft.rng.random(len(draft)) < 0.4
    heels = both & low
    lean = draft.around(4, 7)
    for side in SIDES:
        thigh = np.where(heels, draft.around(68, 6), draft.around(4, 6))
        knee = np.where(heels, draft.around(144, 4), thigh + draft.around(90, 5) - lean)
        if side == "L":
            front = draft.around(90, 9)
            thigh = np.where(both, thigh, front)
            knee = np.where(both, knee, front + draft.around(2, 9))
        draft.leg(side, thigh, knee, draft.around(7, 4), 5, np.where(both | (side == "R"), 40, 0))
    draft.trunk(draft.around(8, 9), draft.around(0, 11), draft.around(0, 6))
    draft.tilt[:, 0] = lean
    draft.head()


def lunge(draft: Draft) -> None:
    """Step far forward or to the side, both feet on the ground."""
    wide = draft.rng.random(len(draft)) < 0.35
    thigh = draft.between(28, 82)
    shin = draft.around(0, 9) - np.where(wide, 12, 0)  # forward of the vertical
    out = np.where(wide, draft.between(15, 35), draft.around(4, 4))
    draft.leg("L", thigh, thigh - shin, out, np.where(wide, 20, 6))
    drop = THIGH * _cos(thigh) * _cos(out) + SHIN * _cos(shin)  # hip above ankle
    back = draft.between(5, 28)
    knee = _arccos((drop - THIGH * _cos(back)) / SHIN) - back
    straight = draft.around(7, 4)
    draft.leg(
        "R",
        np.where(wide, draft.around(4, 5), -back),
        np.where(wide, straight, knee),
        np.where(wide, _arccos(drop / (THIGH + SHIN)), draft.around(3, 3)),
        np.where(wide, 12, 4),
        np.where(wide, 0, 16),
    )
    draft.trunk(draft.around(8, 10), draft.around(0, 14), draft.around(0, 7))
    draft.tilt[:, 0] = draft.around(5, 6)
    draft.head()


def bend(draft: Draft) -> None:
    """Bend down, forward or sideways, with legs almost straight."""
    hip, knee = draft.between(25, 95), draft.around(16, 13)
    for side in SIDES:
        draft.leg(side, hip + draft.around(0, 2), knee + draft.around(0, 3), draft.around(8, 5))
    draft.trunk(draft.around(38, 18), draft.around(0, 18), draft.around(0, 14))
    draft.head(-5, spread=1.2)


def reach(draft: Draft) -> None:
    """Stand and stretch towards something: the trunk goes along."""
    stand(draft)
    draft.trunk(draft.around(4, 14), draft.around(0, 26), draft.around(0, 17))
    draft.head(-4, spread=1.3)


def one_leg(draft: Draft) -> None:
    """Stand on one leg: a kick, a high step, a dance."""
    draft.leg("R", draft.around(6, 7), draft.around(12, 9), draft.around(2, 3))
    back = draft.rng.random(len(draft)) < 0.3
    draft.leg("L", np.where(back, draft.between(-28, 0), draft.between(30, 115)),
              np.where(back, draft.between(10, 120), draft.between(0, 115)),
              np.abs(draft.around(8, 20)), draft.around(12, 10), 12)  # fmt: skip
    draft.trunk(draft.around(4, 13), draft.around(0, 16), draft.around(0, 10))
    draft.head()


def climb(draft: Draft) -> None:
    """Climb: one leg drawn up, the other pushing."""
    high = draft.between(50, 115)
    draft.leg(
        "L", high, high * draft.between(0.75, 1.2), draft.between(5, 40), draft.around(20, 10), 10
    )
    low = draft.between(0, 55)
    draft.leg(
        "R", low, low * draft.between(0.8, 1.6), draft.between(2, 25), draft.around(14, 9), 18
    )
    draft.trunk(draft.around(2, 13), draft.around(0, 13), draft.around(0, 11))
    draft.tilt[:] = np.stack([draft.around(4, 11), 0 * low, draft.around(0, 9)], axis=1)
    draft.head(-14)


def jump(draft: Draft) -> None:
    """Jump or leap: nothing on the ground."""
    for side in SIDES:
        drawn = draft.between(-15, 95)
        draft.leg(
            side, drawn, np.abs(drawn) * draft.between(0.3, 1.5), draft.between(0, 32), 12, 26
        )
    draft.trunk(draft.around(6, 16), draft.around(0, 16), draft.around(0, 12))
    draft.tilt[:] = np.stack(
        [draft.around(4, 16), 0 * draft.tilt[:, 0], draft.around(0, 10)], axis=1
    )
    draft.head()


def crawl(draft: Draft) -> None:
    """Go on hands and knees; the back slopes, for arms are longer than thighs."""
    lean = draft.around(70, 4)
    for side in SIDES:
        thigh = lean + draft.around(0, 9)
        draft.leg(side, thigh, lean + 88 - thigh + draft.around(0, 3), draft.around(6, 5), 2, 38)
    draft.trunk(draft.around(0, 10), draft.around(0, 6), draft.around(0, 6))
    draft.tilt[:, 0] = lean
    draft.head(-32)


def lie(draft: Draft) -> None:
    """Lie on the back, the belly or a side."""
    lying = draft.rng.choice(4, len(draft), p=(0.45, 0.25, 0.15, 0.15))
    prone, beside = lying == 1, lying >= 2
    drawn = draft.between(0, 1) ** 2
    for side in SIDES:
        flexion = np.where(prone, draft.around(0, 5), np.where(beside, 95, 60) * drawn)
        flexion = flexion + draft.around(0, 6)
        knee = np.where(prone, 75 * draft.between(0, 1) ** 4, 1.7 * flexion.clip(0))
        draft.leg(side, flexion, knee, np.where(beside, 2, draft.around(8, 6)), 10, 24)
    draft.trunk(
        np.where(beside, 14, 2) + draft.around(0, 6), draft.around(0, 6), draft.around(0, 6)
    )
    roll = np.choose(lying, (0, 180, 90, -90)) + draft.around(0, 8)
    draft.tilt[:] = np.stack([draft.around(-90, 3), roll, draft.around(0, 3)], axis=1)
    draft.head(spread=0.7)


def free(draft: Draft) -> None:
    """Do anything: every joint on its own."""
    for side in SIDES:
        flexion = draft.around(30, 34).clip(-25, 125)
        draft.leg(
            side,
            flexion,
            draft.around(48, 36).clip(0, 145),
            draft.around(14, 14),
            draft.around(8, 12),
        )
    draft.trunk(draft.around(10, 20), draft.around(0, 22), draft.around(0, 14), noise=4)
    draft.tilt[:] = np.stack(
        [draft.around(0, 20), 0 * draft.tilt[:, 0], draft.around(0, 14)], axis=1
    )
    draft.head(spread=1.3)


def _cos(degrees):
    return np.cos(np.deg2rad(degrees))


def _arccos(ratio):
    return np.rad2deg(np.arccos(np.clip(ratio, -1, 1)))


@dataclass(frozen=True)
class Archetype:
    """One thing that people do."""

    draw: Callable[[Draft], None]
    """Writes legs, trunk, head and tilt."""
    weight: float
    """How often it is drawn, relative to the others."""
    stands_on: tuple[str, ...] = ("Sole",)
    """Parts that carry the body: no other part is below them. Empty: it hangs or flies."""
    balanced: bool = False
    """The whole body is tilted until its centre of mass is above the feet."""
    arms: dict[str, float] = field(default_factory=dict)
    """Rules of `arms.ARMS` that go with it, and how often; else any rule."""

    @property
    def on_feet(self) -> bool:
        """Whether soles near the ground lie flat on it."""
        return self.stands_on == ("Sole",)


ARCHETYPES = {
    "stand": Archetype(stand, 0.17, balanced=True),
    "walk": Archetype(walk, 0.10, arms={"swing": 0.65}),
    "run": Archetype(run, 0.06, arms={"pump": 0.8}),
    "sit": Archetype(sit, 0.10),
    "sit_on_ground": Archetype(sit_on_ground, 0.05, ("Trunk",), arms={"gesture": 0.4}),
    "squat": Archetype(squat, 0.05, balanced=True, arms={"forward": 0.3}),
    "kneel": Archetype(kneel, 0.04, ("Shin", "Sole")),
    "lunge": Archetype(lunge, 0.05),
    "bend": Archetype(bend, 0.06, balanced=True, arms={"down": 0.4}),
    "reach": Archetype(reach, 0.08, balanced=True, arms={"free": 0.9}),
    "one_leg": Archetype(one_leg, 0.05, balanced=True),
    "climb": Archetype(climb, 0.05, (), arms={"up": 0.6, "forward": 0.2}),
    "jump": Archetype(jump, 0.03, ()),
    "crawl": Archetype(crawl, 0.02, ("Shin", "Sole", "Palm"), arms={"down": 1.0}),
    "lie": Archetype(lie, 0.06, ("Trunk",), arms={"side": 0.3, "up": 0.2, "gesture": 0.25}),
    "free": Archetype(free, 0.03, (), arms={"free": 0.6}),
}
