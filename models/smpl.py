"""SMPL as a layer without parameters (Loper et al., SIGGRAPH Asia 2015), and the `Estimate`."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.body import Body
from utils.geometry import axis_angle_to_rotmat, project
from utils.joints import H36M_NAMES, KEYPOINTS_FROM_H36M, SMPL_NAMES, SMPL_PARENTS
from utils.joints import mirrored as mirrored_joints

NUM_JOINTS = len(SMPL_NAMES)
NUM_BETAS = 10
PELVIS = H36M_NAMES.index("Pelvis")


@dataclass(frozen=True)
class Estimate:
    """What one stage of the model says about each person; a field not computed is None.

    Frame of everything 3D: the camera's, metres, x right, y down, z away; the origin is SMPL's own.
    A person upright and facing the camera has a global rotation of about (pi, 0, 0).
    """

    rotmat: Float[Tensor, "b 24 3 3"]
    """Rotation of each SMPL joint relative to its parent (the first: to the camera)."""
    betas: Float[Tensor, "b 10"]
    """Shape coefficients, standard deviations."""
    cam: Float[Tensor, "b 3"]
    """Weak-perspective camera (scale, tx, ty), see `utils.geometry.project`."""
    joints_2d: Float[Tensor, "b 24 2"]
    """SMPL's 24 joints in crop coordinates, x right, y down, [-1, 1] from edge to edge."""
    joints: Float[Tensor, "b 24 3"]
    """SMPL's 24 joints (kinematic tree)."""
    vertices: Float[Tensor, "b v 3"] | None = None
    keypoints_3d: Float[Tensor, "b 14 3"] | None = None
    """The 14 evaluated keypoints (`utils.joints.KEYPOINT_NAMES`), regressed from the vertices."""
    keypoints_2d: Float[Tensor, "b 14 2"] | None = None
    """Their projection, crop coordinates."""
    pelvis: Float[Tensor, "b 3"] | None = None
    """The regressed Human3.6M pelvis: errors of vertices are measured relative to it."""


@dataclass(frozen=True)
class PosedBody:
    """A body in a pose: the layer's answer. Metres, in the frame that the global rotation gives."""

    vertices: Float[Tensor, "b v 3"]
    joints: Float[Tensor, "b 24 3"]
    keypoints_3d: Float[Tensor, "b 14 3"] | None
    pelvis: Float[Tensor, "b 3"] | None


class SMPL(nn.Module):
    """Pose and shape in; vertices, joints and keypoints out.

    The body's arrays are buffers that no state dict contains, so that a licensed body never ends
    up in a checkpoint. What is precomputed from them is rounded once, to the layer's precision:
    `layer.double()` agrees with a float64 computation on the body's arrays.

    Args:
        body: the arrays; any number of vertices. A body without a regressor of the Human3.6M
            joints gives no keypoints.
    """

    v_template: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]

    def __init__(self, body: Body):
        super().__init__()
        self.body = body
        self.register_buffer("faces", torch.from_numpy(body.faces.astype("int64")), False)
        for name, value in self._float_arrays().items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _float_arrays(self) -> dict[str, Tensor]:
        """Return what the layer computes with, on the CPU; what is derived is in float64."""
        body = self.body
        regress = torch.from_numpy(body.J_regressor).double()
        v_template = torch.from_numpy(body.v_template).double()
        shapedirs = torch.from_numpy(body.shapedirs).double()
        arrays = {
            "v_template": v_template,
            "shapedirs": shapedirs.flatten(0, 1).T.contiguous(),  # (10, 3V)
            "posedirs": torch.from_numpy(body.posedirs).flatten(0, 1).T.contiguous(),  # (207, 3V)
            "lbs_weights": torch.from_numpy(body.lbs_weights),
            # Joints are linear in betas, so that the skeleton needs no vertices.
            "joint_template": regress @ v_template,
            "joint_shapedirs": torch.einsum("jv,vck->kjc", regress, shapedirs).flatten(1),
        }
        if body.h36m_regressor is not None:
            arrays["h36m_regressor"] = torch.from_numpy(body.h36m_regressor)
        return arrays

    def _apply(self, fn, recurse=True):
        """Move or cast the buffers; after a cast, what was precomputed is rounded anew."""
        before = self.v_template.dtype
        super()._apply(fn, recurse)
        if self.v_template.dtype != before:
            for name, value in self._float_arrays().items():
                self._buffers[name] = value.to(self._buffers[name])
        return self

    @property
    def num_vertices(self) -> int:
        """Number of the body's vertices."""
        return len(self.v_template)

    def skeleton(
        self, rotmat: Float[Tensor, "b 24 3 3"], betas: Float[Tensor, "b 10"]
    ) -> tuple[Float[Tensor, "b 24 3"], Float[Tensor, "b 24 3 4"]]:
        """Pose the kinematic tree alone, without a single vertex.

        Returns:
            The posed joints, and the affine transform of each joint that takes a point of the
            shaped rest pose to the posed body.
        """
        rest = self.joint_template + (betas @ self.joint_shapedirs).unflatten(1, (NUM_JOINTS, 3))
        rotations, joints = [rotmat[:, 0]], [rest[:, 0]]
        for child, parent in list(enumerate(SMPL_PARENTS))[1:]:
            bone = rest[:, child] - rest[:, parent]
            joints.append((rotations[parent] @ bone[..., None])[..., 0] + joints[parent])
            rotations.append(rotations[parent] @ rotmat[:, child])
        rotation, posed = torch.stack(rotations, dim=1), torch.stack(joints, dim=1)
        translation = posed[..., None] - rotation @ rest[..., None]
        return posed, torch.cat([rotation, translation], dim=-1)

    def forward(
        self,
        pose: Float[Tensor, "b 72"] | Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
    ) -> PosedBody:
        """Pose the body.

        Args:
            pose: axis-angle in radians, or rotation matrices; joint 0 is the global rotation.
            betas: shape coefficients.
        """
        rotmat = pose
        if pose.ndim == 2:
            rotmat = axis_angle_to_rotmat(pose.unflatten(1, (NUM_JOINTS, 3)))
        joints, transforms = self.skeleton(rotmat, betas)
        vertices = self._skin(rotmat, betas, transforms)
        if self.body.h36m_regressor is None:
            return PosedBody(vertices, joints, None, None)
        h36m = self.h36m_regressor @ vertices
        return PosedBody(vertices, joints, h36m[:, KEYPOINTS_FROM_H36M], h36m[:, PELVIS])

    def _skin(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        transforms: Float[Tensor, "b 24 3 4"],
    ) -> Float[Tensor, "b v 3"]:
        """Blend shapes, pose correctives, then linear blend skinning (SMPL, eq. 2 to 9)."""
        identity = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        pose_feature = (rotmat[:, 1:] - identity).flatten(1)  # (b, 23 * 9)
        offsets = betas @ self.shapedirs + pose_feature @ self.posedirs
        rest = self.v_template + offsets.unflatten(1, (self.num_vertices, 3))
        # (v, 24) x (b, 24, 3 * 4) -> (b, v, 3, 4): each vertex's own transform
        blended = (self.lbs_weights @ transforms.flatten(2)).unflatten(2, (3, 4))
        return (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]

    def average_with_mirrored(self, estimate: Estimate, mirrored: Estimate) -> Estimate:
        """Average an estimate with the one of the mirrored crop, and pose the body anew.

        The mirrored pose is turned back: left and right joints swap, and every rotation is
        reflected in the plane x = 0. Rotations are averaged as matrices, then brought back to the
        nearest rotation; betas and camera are averaged as numbers.
        """
        reflect = torch.tensor([-1.0, 1.0, 1.0]).to(mirrored.rotmat)
        back = reflect[:, None] * mirrored.rotmat[:, list(mirrored_joints(SMPL_NAMES))] * reflect
        u, _, vh = torch.linalg.svd(estimate.rotmat + back)
        u = u * torch.linalg.det(u @ vh).sign()[..., None, None]  # never a reflection
        cam = mirrored.cam * torch.tensor([1.0, -1.0, 1.0]).to(mirrored.cam)
        betas = (estimate.betas + mirrored.betas) / 2
        return self.estimate(u @ vh, betas, (estimate.cam + cam) / 2)

    def estimate(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        cam: Float[Tensor, "b 3"],
        skeleton_only: bool = False,
    ) -> Estimate:
        """Pose the body and see it through the camera; the skeleton alone is far cheaper."""
        if skeleton_only:
            joints, _ = self.skeleton(rotmat, betas)
            return Estimate(rotmat, betas, cam, project(joints, cam), joints)
        posed = self(rotmat, betas)
        keypoints_2d = None if posed.keypoints_3d is None else project(posed.keypoints_3d, cam)
        return Estimate(
            rotmat,
            betas,
            cam,
            project(posed.joints, cam),
            posed.joints,
            posed.vertices,
            posed.keypoints_3d,
            keypoints_2d,
            posed.pelvis,
        )


class GenderedSMPL(nn.Module):
    """Each person on the body of their gender: the ground truth of newer 3DPW papers.

    Args:
        neutral: body of gender 0 (neutral or unknown).
        male: body of gender 1.
        female: body of gender 2.
    """

    def __init__(self, neutral: SMPL, male: SMPL, female: SMPL):
        super().__init__()
        self.bodies = nn.ModuleList([neutral, male, female])

    def forward(
        self,
        pose: Float[Tensor, "b 72"],
        betas: Float[Tensor, "b 10"],
        gender: Int[Tensor, "b"],
    ) -> PosedBody:
        """Pose all three bodies and take each person's own."""
        posed = [body(pose, betas) for body in self.bodies]
        person = torch.arange(len(gender), device=gender.device)

        def own(field: str) -> Tensor:
            return torch.stack([getattr(body, field) for body in posed])[gender, person]

        return PosedBody(own("vertices"), own("joints"), own("keypoints_3d"), own("pelvis"))
