"""What stands in a scene: a posed person or object, and the look of its layers.

World frame: metres, x to the left of a person at rest, y up, z forward.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.utils.joints import NUM_JOINTS, SMPL_PARENTS


@dataclass(frozen=True, eq=False)
class Part:
    """One layer on a person, with its look."""

    layer: int
    """Row of `smpler.datasets.engine.layers.Layers.table`; 0 is the body."""
    texture: int
    """Index into `smpler.datasets.engine.people.People.textures`."""
    matrix: Float[np.ndarray, "3 3"]
    """Takes the texture's linear colour to what is seen."""
    highlight: float


@dataclass(frozen=True, eq=False)
class Actor:
    """Something posed: a person, or an object whose 24 transforms are all the same."""

    betas: Float[np.ndarray, "10"]
    rotmat: Float[np.ndarray, "24 3 3"]
    transforms: Float[np.ndarray, "24 3 4"]
    """From the shaped rest pose to the world's frame or, once moved there, the camera's."""
    joints: Float[np.ndarray, "24 3"]
    parts: tuple[Part, ...]
    hiding: tuple[int, ...] = ()
    """Rows of `People.hidden_faces`: the garments that hide the body under them."""

    def pose(self) -> Float[np.ndarray, "24 3"]:
        """Return the rotations as axis-angle, radians."""
        return Rotation.from_matrix(self.rotmat).as_rotvec()

    def moved(
        self, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
    ) -> "Actor":
        """Return the actor in another frame, x -> rotation @ x + translation."""
        transforms = rotation @ self.transforms
        transforms[..., 3] += translation
        rotmat = self.rotmat.copy()
        rotmat[0] = rotation @ rotmat[0]
        joints = self.joints @ rotation.T + translation
        return Actor(self.betas, rotmat, transforms, joints, self.parts, self.hiding)


def skeleton(
    rest: Float[np.ndarray, "24 3"], rotmat: Float[np.ndarray, "24 3 3"]
) -> tuple[Float[np.ndarray, "24 3"], Float[np.ndarray, "24 3 4"]]:
    """Pose the kinematic tree.

    Returns:
        The joints, and each joint's transform from the rest pose.
    """
    rotations, joints = np.empty((NUM_JOINTS, 3, 3)), np.empty((NUM_JOINTS, 3))
    rotations[0], joints[0] = rotmat[0], rest[0]
    for child, parent in list(enumerate(SMPL_PARENTS))[1:]:
        rotations[child] = rotations[parent] @ rotmat[child]
        joints[child] = joints[parent] + rotations[parent] @ (rest[child] - rest[parent])
    offset = joints - np.einsum("jab,jb->ja", rotations, rest)
    return joints, np.concatenate([rotations, offset[..., None]], axis=2)
