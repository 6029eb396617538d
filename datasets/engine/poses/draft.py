"""A batch of poses that rules write joint by joint: flexion, turn, lean, in degrees."""

import numpy as np
from jaxtyping import Float

from smpler.utils.joints import NUM_JOINTS, SMPL_NAMES

SIDES = ("L", "R")
SPINE = ("Spine1", "Spine2", "Spine3")
DRAWN_AT_ONCE = 64
"""Normal numbers that are drawn at a time for each pose."""


class Draft:
    """A batch of n poses that rules are writing.

    `angles` (n, 24, 3) are those of `smpler.datasets.engine.poses.anatomy`, degrees; joint 0 is not
    used. `tilt` (n, 3) is that of the whole body, degrees about x (forward), y and z, applied in
    the order y, x, z.
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
        if row is None:  # many at once: calls for single ones would take most of the time
            drawn = self.rng.standard_normal((DRAWN_AT_ONCE, len(self)))
            self._normal = iter(drawn.clip(-2.5, 2.5))
            row = next(self._normal)
        return row

    def around(self, mean, spread: float) -> Float[np.ndarray, "n"]:
        """Draw about a mean: normal, cut at 2.5 standard deviations."""
        return mean + spread * self.normal()

    def between(self, low: float, high: float) -> Float[np.ndarray, "n"]:
        """Draw from a uniform distribution."""
        return self.rng.uniform(low, high, len(self))

    def put(self, joint: str, x=0.0, y=0.0, z=0.0) -> None:
        """Set a joint's angles."""
        place = self.angles[:, SMPL_NAMES.index(joint)]
        place[:, 0], place[:, 1], place[:, 2] = x, y, z

    def leg(self, side: str, flexion, knee, abduction=4.0, turn=8.0, ankle=0.0) -> None:
        """Set a leg.

        Positive angles are: flexion of the hip forward, the knee bent, abduction and turn outwards,
        the ankle's toes down.
        """
        self.put(f"{side}_Hip", -flexion, self.around(turn, 7), self.around(abduction, 3))
        self.put(f"{side}_Knee", np.abs(knee), self.around(0, 3))
        self.put(f"{side}_Ankle", self.around(ankle, 6), self.around(0, 5), self.around(0, 4))
        self.put(f"{side}_Foot", self.around(-3, 6))

    def hand(self, side: str) -> None:
        """Set a relaxed hand: the fingers a little bent."""
        self.put(f"{side}_Hand", self.around(0, 4), self.around(0, 4), self.around(-14, 14))

    def trunk(self, bend=3.0, turn=0.0, lean=0.0, noise: float = 2.0) -> None:
        """Set the spine: bend forward, turn left, lean right; each is the sum of three joints'."""
        for joint in SPINE:
            parts = (self.around(total / len(SPINE), noise) for total in (bend, turn, lean))
            self.put(joint, *parts)

    def head(self, nod=2.0, turn=0.0, spread: float = 1.0) -> None:
        """Set neck and head: nod down, turn left; each is the sum of both joints'."""
        nod, turn = self.around(nod, 13 * spread), self.around(turn, 26 * spread)
        roll = self.around(0, 7 * spread)
        for joint, share in (("Neck", 0.45), ("Head", 0.55)):
            self.put(joint, share * nod, share * turn, share * roll)
