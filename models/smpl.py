"""SMPL as a layer without parameters (Loper et al., SIGGRAPH Asia 2015), and the `Estimate`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from smpler.models.body import Body
from smpler.utils.geometry import axis_angle_to_rotmat, nearest_rotation, project
from smpler.utils.joints import (
    H36M_PELVIS,
    KEYPOINTS_FROM_H36M,
    NUM_JOINTS,
    SMPL_NAMES,
    SMPL_PARENTS,
)
from smpler.utils.joints import mirrored as mirrored_joints

NUM_KEYPOINTS = len(KEYPOINTS_FROM_H36M)


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
    """Weak-perspective camera (scale, tx, ty), see `smpler.utils.geometry.project`."""
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

    vertices: Float[Tensor, "b v 3"] | None
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

    faces: Int[Tensor, "f 3"]
    keypoint_rows: Int[Tensor, "15"]
    """Rows of the regressor that give the keypoints, then the pelvis."""
    parents: Int[Tensor, "23"]
    parent_place: Int[Tensor, "24"]
    v_template: Float[Tensor, "v 3"]
    blend_shapes: Float[Tensor, "217 3*v"]
    lbs_weights: Float[Tensor, "v 24"]
    joint_template: Float[Tensor, "24 3"]
    joint_shapedirs: Float[Tensor, "10 72"]
    h36m_regressor: Float[Tensor, "17 v"]
    """Absent when the body has none."""

    def __init__(self, body: Body):
        super().__init__()
        self.body = body
        self.register_buffer("faces", torch.from_numpy(body.faces.astype("int64")), False)
        rows = torch.tensor([*KEYPOINTS_FROM_H36M, H36M_PELVIS])
        self.register_buffer("keypoint_rows", rows, persistent=False)
        self.register_buffer("parents", torch.tensor(SMPL_PARENTS[1:]), persistent=False)
        self.register_buffer("parent_place", torch.tensor(_PARENT_PLACE), persistent=False)
        self._folded: tuple[Tensor, Tensor, Tensor] | None = None
        for name, value in self._float_arrays().items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _float_arrays(self) -> dict[str, Tensor]:
        """Return what the layer computes with, on the CPU; what is derived is in float64.

        Per vertex, coordinates come first: (3, V), so that skinning runs along vertices.
        """
        body = self.body
        regress = torch.from_numpy(body.J_regressor).double()
        v_template = torch.from_numpy(body.v_template).double()
        shapedirs = torch.from_numpy(body.shapedirs)
        # what betas and pose correctives, 10 + 207 numbers, each add to the rest pose
        blend_shapes = torch.cat([shapedirs, torch.from_numpy(body.posedirs)], dim=2)
        arrays = {
            "v_template": v_template,
            "blend_shapes": blend_shapes.permute(2, 1, 0).flatten(1),  # (217, 3V)
            "lbs_weights": torch.from_numpy(body.lbs_weights),
            # Joints are linear in betas, so that the skeleton needs no vertices.
            "joint_template": regress @ v_template,
            "joint_shapedirs": torch.einsum("jv,vck->kjc", regress, shapedirs.double()).flatten(1),
        }
        if body.h36m_regressor is not None:
            arrays["h36m_regressor"] = torch.from_numpy(body.h36m_regressor)
        return arrays

    def _apply(self, fn, recurse=True):
        """Move or cast the buffers; after a cast, what was precomputed is rounded anew."""
        before = self.v_template.dtype
        super()._apply(fn, recurse)
        self._folded = None
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
        bones = torch.cat([rest[:, :1], rest[:, 1:] - rest.index_select(1, self.parents)], dim=1)
        local = torch.cat([rotmat, bones[..., None]], dim=-1)  # (b, 24, 3, 4)
        levels = [local[:, :1]]
        for start, stop in _LEVELS[1:]:  # all joints as far from the root at once
            parents = levels[-1].index_select(1, self.parent_place[start:stop])
            turned = parents[..., :3] @ local[:, start:stop]
            levels.append(turned + F.pad(parents[..., 3:], (3, 0)))
        rotation, posed = torch.cat(levels, dim=1).split([3, 1], dim=-1)
        translation = posed - rotation @ rest[..., None]
        return posed[..., 0], torch.cat([rotation, translation], dim=-1)

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
        places = self._skin(rotmat, betas, transforms)
        vertices = places.mT.contiguous()
        if self.body.h36m_regressor is None:
            return PosedBody(vertices, joints, None, None)
        regressor = self.h36m_regressor.index_select(0, self.keypoint_rows)
        keypoints_3d, pelvis = (places @ regressor.T).mT.split([NUM_KEYPOINTS, 1], dim=1)
        return PosedBody(vertices, joints, keypoints_3d, pelvis[:, 0])

    def _skin(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        transforms: Float[Tensor, "b 24 3 4"],
    ) -> Float[Tensor, "b 3 v"]:
        """Blend shapes, pose correctives, then linear blend skinning (SMPL, eq. 2 to 9)."""
        offsets = _shape_and_pose(rotmat, betas) @ self.blend_shapes
        x, y, z = (self.v_template.T + offsets.unflatten(1, (3, -1))).unbind(1)  # (b, v) each
        # (b, 3 * 4, 24) x (24, v): each vertex's own transform, coordinates first
        blended = transforms.flatten(2).mT @ self.lbs_weights.T
        to_x, to_y, to_z, moved = blended.unflatten(1, (3, 4)).unbind(2)  # (b, 3, v) each
        for column, coordinate in ((to_x, x), (to_y, y), (to_z, z)):
            moved = torch.addcmul(moved, column, coordinate[:, None])
        return moved

    def keypoints(
        self, rotmat: Float[Tensor, "b 24 3 3"], betas: Float[Tensor, "b 10"]
    ) -> PosedBody:
        """Pose joints, keypoints and pelvis without the vertices, which are left None.

        A keypoint is a weighted sum of vertices, and a posed vertex a sum over joints of
        weight * (rotation @ rest + translation), where rest is linear in betas and pose features:
        the sums over vertices do not depend on the pose and are made once per body.
        """
        joints, transforms = self.skeleton(rotmat, betas)
        if self.body.h36m_regressor is None:
            return PosedBody(None, joints, None, None)
        if self._folded is None:
            self._folded = self._fold_regressor()
        template, basis, mass = self._folded
        rest = template + (_shape_and_pose(rotmat, betas) @ basis).unflatten(1, template.shape)
        rotation, translation = transforms.split([3, 1], dim=-1)
        # (b, 3, 24 * 3) x (b, 24 * 3, 15): sum over joints and rest coordinates
        turned = rotation.transpose(1, 2).flatten(2) @ rest
        moved = (turned + translation[..., 0].mT @ mass).mT
        return PosedBody(None, joints, moved[:, :NUM_KEYPOINTS], moved[:, NUM_KEYPOINTS])

    @torch.no_grad()
    def _fold_regressor(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sum regressor * skinning weight * (template, blend shapes, 1) over vertices.

        Returns:
            template (24 * 3, 15), basis (217, 24 * 3 * 15) and mass (24, 15), for 14 keypoints and
            the pelvis.
        """
        home = self.v_template.device
        place = "cpu" if home.type == "mps" else home  # a Mac's GPU has no float64
        regressor = self.h36m_regressor.index_select(0, self.keypoint_rows).to(place).double()
        used = regressor.any(dim=0)
        skinning, v_template = (x.to(place)[used] for x in (self.lbs_weights, self.v_template))
        weights = torch.einsum("kv,vj->jkv", regressor[:, used], skinning.double())
        template = torch.einsum("jkv,vc->jck", weights, v_template.double())
        shapes = self.blend_shapes.to(place).unflatten(1, (3, -1))[..., used].double()
        basis = torch.einsum("jkv,fcv->fjck", weights, shapes)
        folded = template.flatten(0, 1), basis.flatten(1), weights.sum(dim=2)
        template, basis, mass = (x.to(self.v_template.dtype).to(home) for x in folded)
        return template, basis, mass

    def average_with_mirrored(self, estimate: Estimate, mirrored: Estimate) -> Estimate:
        """Average an estimate with the one of the mirrored crop, and pose the body anew.

        The mirrored pose is turned back: left and right joints swap, and every rotation is
        reflected in the plane x = 0. Rotations are averaged as matrices, then brought back to the
        nearest rotation; betas and camera are averaged as numbers.
        """
        reflect = torch.tensor([-1.0, 1.0, 1.0]).to(mirrored.rotmat)
        back = reflect[:, None] * mirrored.rotmat[:, list(mirrored_joints(SMPL_NAMES))] * reflect
        rotmat = nearest_rotation(estimate.rotmat + back)
        cam = mirrored.cam * torch.tensor([1.0, -1.0, 1.0]).to(mirrored.cam)
        betas = (estimate.betas + mirrored.betas) / 2
        return self.estimate(rotmat, betas, (estimate.cam + cam) / 2)

    def estimate(
        self,
        rotmat: Float[Tensor, "b 24 3 3"],
        betas: Float[Tensor, "b 10"],
        cam: Float[Tensor, "b 3"],
        parts: str = "mesh",
    ) -> Estimate:
        """Pose the body and see it through the camera.

        Args:
            parts: `mesh` fills everything; `keypoints` all but the vertices, at a tenth of the
                cost; `skeleton` only the joints.
        """
        if parts == "skeleton":
            posed = PosedBody(None, self.skeleton(rotmat, betas)[0], None, None)
        else:
            posed = {"mesh": self, "keypoints": self.keypoints}[parts](rotmat, betas)
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


def _shape_and_pose(
    rotmat: Float[Tensor, "b 24 3 3"], betas: Float[Tensor, "b 10"]
) -> Float[Tensor, "b 217"]:
    """What the rest pose is linear in: betas, then each rotation's difference from the identity."""
    identity = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
    return torch.cat([betas, (rotmat[:, 1:] - identity).flatten(1)], dim=1)


def _levels() -> list[tuple[int, int]]:
    """First and last + 1 joint of each distance from the root; SMPL numbers joints that way."""
    depth = [0]
    for parent in SMPL_PARENTS[1:]:
        depth.append(depth[parent] + 1)
    assert depth == sorted(depth)
    return [(depth.index(d), depth.index(d) + depth.count(d)) for d in range(depth[-1] + 1)]


_LEVELS = _levels()
_PARENT_PLACE = [
    max(SMPL_PARENTS[joint] - start, 0)
    for (start, _), (first, last) in zip([(0, 1), *_LEVELS], _LEVELS, strict=False)
    for joint in range(first, last)
]
"""Where a joint's parent stands among the joints of the level before."""
