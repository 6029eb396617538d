"""N poses while they are being drawn: angles of the joints, in the words of the rules."""

import numpy as np
from jaxtyping import Float

from smpler.datasets.engine.poses.anatomy import NUM_JOINTS
from smpler.utils.joints import SMPL_NAMES

SIDES = ("L", "R")
SPINE = ("Spine1", "Spine2", "Spine3")
DRAWN_AT_ONCE = 64
"""Normal numbers for each pose."""


class Draft:
    """N poses being drawn.

    `angles` (n, 24, 3) are degrees, entry 0 unused; `tilt` (n, 3) degrees of the whole body about x
    (forward), y and z, turned in the order y, x, z.
    """

    def __init__(self, count: int, rng: np.random.Generator):
        self.rng = rng
        self.angles = np.zeros((count, NUM_JOINTS, 3))
        self.tilt = np.zeros((count, 3))
        self._normal = iter(())

    def __len__(self) -> int:
        return len(self.angles)

    def normal(self) -> Float[np.ndarray, "n"]:
        """Draw from a normal distribution, cut at 2.5 standard deviations."""
        row = next(self._normal, None)
        if row is None:  # many at a time: a call for each would take most of the time
            drawn = self.rng.standard_normal((DRAWN_AT_ONCE, len(self)))
            self._normal = iter(drawn.clip(-2.5, 2.5))
            row = next(self._normal)
        return row

    def around(self, mean, spread: float) -> Float[np.ndarray, "n"]:
        """Draw about a mean: normal, cut at 2.5 standard deviations."""
        return mean + spread * self.normal()

    def between(self, low: float, high: float) -> Float[np.ndarray, "n"]:
        """Draw evenly."""
        return self.rng.uniform(low, high, len(self))

    def put(self, joint: str, x=0.0, y=0.0, z=0.0) -> None:
        """Set a joint's angles."""
        place = self.angles[:, SMPL_NAMES.index(joint)]
        place[:, 0], place[:, 1], place[:, 2] = x, y, z

    def leg(self, side: str, flexion, knee, abduction=4.0, turn=8.0, ankle=0.0) -> None:
        """Set a leg: all angles positive forward, bent, outwards, outwards, toes down."""
        self.put(f"{side}_Hip", -flexion, self.around(turn, 7), self.around(abduction, 3))
        self.put(f"{side}_Knee", np.abs(knee), self.around(0, 3))
        self.put(f"{side}_Ankle", self.around(ankle, 6), self.around(0, 5), self.around(0, 4))
        self.put(f"{side}_Foot", self.around(-3, 6))

    def trunk(self, bend=3.0, turn=0.0, lean=0.0, noise: float = 2.0) -> None:
        """Set the spine: forward, to the left, to the right; sums over the three joints."""
        for joint in SPINE:
            parts = (self.around(total / len(SPINE), noise) for total in (bend, turn, lean))
            self.put(joint, *parts)

    def head(self, nod=2.0, turn=0.0, spread: float = 1.0) -> None:
        """Set neck and head: down, to the left; sums over the two joints."""
        nod, turn = self.around(nod, 13 * spread), self.around(turn, 26 * spread)
        roll = self.around(0, 7 * spread)
        for joint, share in (("Neck", 0.45), ("Head", 0.55)):
            self.put(joint, share * nod, share * turn, share * roll)
