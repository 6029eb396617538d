"""MakeHuman's rig of 104 bones, driven by SMPL's pose: the correctives are fitted to it.

Limbs twist gradually along their length, the spine and neck bend in more places, hips and
shoulders carry a little of the limb's turn.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scripts.build.open_body.makehuman import Rig
from scripts.build.open_body.rig import (
    follow_chain,
    joint_matrix,
    merge_matrix,
    skin,
    tpose_rotations,
)
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS

# Bone -> SMPL joint, share: the bone turns with the joint's parent and that share of the joint.
PARTIAL = {
    "pelvis": ("L_Hip", 0.12),
    "spine05": ("Spine1", 0.15),
    "spine04": ("Spine1", 0.5),
    "neck01": ("Neck", 0.6),
    "neck03": ("Head", 0.5),
    "shoulder01": ("L_Shoulder", 0.12),
}
# Bone -> joint at its upper end, share of that joint's twist about the bone; joint at its lower
# end, share of that one's twist.
TWIST = {
    "upperarm01": ("L_Shoulder", 0.4, "L_Elbow", 0),
    "upperarm02": ("L_Shoulder", 0.9, "L_Elbow", 0),
    "lowerarm01": ("L_Elbow", 0.6, "L_Wrist", 0.15),
    "lowerarm02": ("L_Elbow", 1, "L_Wrist", 0.6),
    "upperleg01": ("L_Hip", 0.4, "L_Knee", 0),
    "upperleg02": ("L_Hip", 0.95, "L_Knee", 0),
    "lowerleg02": ("L_Knee", 1, "L_Ankle", 0.4),
}


class DrivenRig:
    """MakeHuman's rig on the mean person, driven by SMPL's pose.

    Args:
        rig: bones and weights.
        rest: (V, 3) mean person in A-pose, and the (B, 3) heads of the bones there.
        template: (V, 3) the body in T-pose that the pose of zeros must give.
        joints: (24, 3) the body's joints in T-pose.
    """

    def __init__(self, rig: Rig, rest: tuple, template: np.ndarray, joints: np.ndarray):
        self.rig, self.joints = rig, joints
        self.vertices, self.heads = rest
        self.to_tpose = tpose_rotations(rig, self.heads[None])[0]
        posed, _ = follow_chain(rig, self.heads[None], self.to_tpose[None])
        self.tpose_heads = posed[0] - (joint_matrix(rig) @ posed[0])[0]
        self.main_joint = merge_matrix(rig).argmax(axis=1)
        # the mean of people in T-pose is not exactly the mean person brought there
        error = template - self.pose(np.zeros((1, len(SMPL_NAMES), 3)))[0]
        turn = (rig.weights @ self.to_tpose.reshape(-1, 9)).reshape(-1, 3, 3)
        self.vertices = self.vertices + (np.linalg.inv(turn) @ error[..., None])[..., 0]

    def pose(self, pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n v 3"]:
        """Return the vertices in each axis-angle pose."""
        rotations, translations = self._bones(pose)
        people = zip(rotations, translations, strict=True)
        return np.stack([skin(self.rig, self.vertices, r, t) for r, t in people])

    def _bones(self, pose):
        """Return world rotations (n, B, 3, 3) from the A-pose, and translations (n, B, 3)."""
        local = [Rotation.from_rotvec(pose[:, j]) for j in range(len(SMPL_NAMES))]
        world, joints = self._skeleton(local)
        rotations = np.empty((len(pose), len(self.rig.bones), 3, 3))
        translations = np.empty(rotations.shape[:3])
        for i in range(len(self.rig.bones)):
            anchor, turn = self._bone(i, local, world)
            arm = self.tpose_heads[i] - self.joints[anchor]
            head = joints[:, anchor] + world[anchor].apply(arm)
            rotations[:, i] = turn.as_matrix() @ self.to_tpose[i]
            translations[:, i] = head - rotations[:, i] @ self.heads[i]
        return rotations, translations

    def _skeleton(self, local: list[Rotation]) -> tuple[list[Rotation], np.ndarray]:
        """Return world rotation and place of each of SMPL's joints."""
        world, places = [local[0]], [np.tile(self.joints[0], (len(local[0]), 1))]
        for child, parent in list(enumerate(SMPL_PARENTS))[1:]:
            bone = world[parent].apply(self.joints[child] - self.joints[parent])
            places.append(places[parent] + bone)
            world.append(world[parent] * local[child])
        return world, np.stack(places, axis=1)

    def _bone(self, i: int, local, world) -> tuple[int, Rotation]:
        """Return the joint in whose frame the bone's head is fixed, and its world rotation."""
        bone = self.rig.bones[i].split(".")[0]
        if bone in PARTIAL:
            joint, share = self._joint(i, PARTIAL[bone][0]), PARTIAL[bone][1]
            parent = SMPL_PARENTS[joint]
            return parent, world[parent] * local[joint] ** share
        if bone in TWIST:
            upper, upper_share, lower, lower_share = TWIST[bone]
            upper, lower = self._joint(i, upper), self._joint(i, lower)
            axis = self.joints[lower] - self.joints[upper]
            swing, twist = swing_twist(local[upper], axis)
            turn = world[SMPL_PARENTS[upper]] * swing * twist**upper_share
            return upper, turn * swing_twist(local[lower], axis)[1] ** lower_share
        return self.main_joint[i], world[self.main_joint[i]]

    def _joint(self, i: int, name: str) -> int:
        """Return the index of a joint on the bone's own side."""
        return SMPL_NAMES.index(name.replace("L_", "R_") if self.rig.bones[i][-1] == "R" else name)

    def turned_by(self) -> Float[np.ndarray, "b 24"]:
        """Return 1 where a joint turns a bone differently from the limb attached to it, else 0."""
        turned = np.zeros((len(self.rig.bones), len(SMPL_NAMES)))
        for i, bone in enumerate(self.rig.bones):
            rule = PARTIAL.get(bone.split(".")[0]) or TWIST.get(bone.split(".")[0], ())
            for name in rule[::2]:
                turned[i, self._joint(i, name)] = 1
        return turned


def swing_twist(rotation: Rotation, axis: Float[np.ndarray, "3"]) -> tuple[Rotation, Rotation]:
    """Split each rotation into a swing after a twist about the axis."""
    axis = axis / np.linalg.norm(axis)
    quaternion = rotation.as_quat()
    along = quaternion[:, :3] @ axis
    twist = Rotation.from_quat(np.column_stack([along[:, None] * axis, quaternion[:, 3]]))
    return rotation * twist.inv(), twist
