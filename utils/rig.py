"""A body that joints move: a rest mesh of one shape, its joints, and how they bend it.

What glTF, game engines and animation programs know: linear blend skinning with at most four
joints a vertex, without SMPL's pose correctives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8

from smpler.utils.geometry import CAMERA_TO_Y_UP, vertex_normals

MAX_INFLUENCES = 4
"""Joints that move a vertex; glTF lets a program ignore any more."""
DAMPING = 1e-9
"""Keeps the way back to rest finite where joints turned half round flatten the skin."""
ROUNDING = 1e-6
"""Of weights, by which they may differ and be the same."""
FRAMES_AT_ONCE = 16
"""In `skinning_error`: 16 frames take some 10 MB."""


@dataclass(frozen=True, eq=False)
class Detail:
    """What of a body a rig leaves out."""

    posedirs: Float[np.ndarray, "v 3 207"]
    """Pose correctives, see `Body`."""
    lbs_weights: Float[np.ndarray, "v 24"]
    """All skinning weights."""


@dataclass(frozen=True, eq=False)
class Rig:
    """A body of one shape at rest. Metres, x to the body's left, y up, z ahead."""

    names: tuple[str, ...]
    """Of the joints."""
    parents: tuple[int, ...]
    """Number of each joint's parent; the root's is -1, and a parent precedes its child."""
    joints: Float[np.ndarray, "24 3"]
    vertices: Float[np.ndarray, "v 3"]
    """Shape is in them, pose correctives are not."""
    faces: Int[np.ndarray, "f 3"]
    joint_index: UInt8[np.ndarray, "v 4"]
    """The joints that move each vertex most."""
    joint_weights: Float[np.ndarray, "v 4"]
    """How much; they add up to 1."""
    detail: Detail | None = None
    """What is left out; None where nobody asks how much that is."""

    @cached_property
    def normals(self) -> Float[np.ndarray, "v 3"]:
        """Unit normals of the rest mesh."""
        return normals_of(self.vertices, self.faces)

    @cached_property
    def dense_weights(self) -> Float[np.ndarray, "v 24"]:
        """The four weights of each vertex, 0 for the other joints."""
        dense = np.zeros((len(self.vertices), len(self.names)), np.float32)
        rows = np.arange(len(self.vertices))[:, None]
        np.add.at(dense, (rows, self.joint_index), self.joint_weights)  # joint 0 may stand twice
        return dense

    @cached_property
    def dropped_weights(self) -> Float[np.ndarray, "v 24"] | None:
        """What four weights a vertex differ by from all of them; None where they are all."""
        assert self.detail is not None, "the rig was made without detail"
        difference = self.detail.lbs_weights - self.dense_weights
        return difference if np.abs(difference).max() > ROUNDING else None

    def transforms(
        self, rotmat: Float[np.ndarray, "t 24 3 3"]
    ) -> tuple[Float64[np.ndarray, "t 24 3 3"], Float64[np.ndarray, "t 24 3"]]:
        """Return rotation and translation of each joint, rest to pose; the root stays in place."""
        turned, posed = rotmat.astype(np.float64), np.empty((*rotmat.shape[:2], 3))
        joints = self.joints.astype(np.float64)
        posed[:, 0] = joints[0]
        for joint, parent in list(enumerate(self.parents))[1:]:
            posed[:, joint] = posed[:, parent] + turned[:, parent] @ (
                joints[joint] - joints[parent]
            )
            turned[:, joint] = turned[:, parent] @ turned[:, joint]
        return turned, posed - np.einsum("tjab,jb->tja", turned, joints)

    def posed(self, rotmat: Float[np.ndarray, "t 24 3 3"]) -> Float[np.ndarray, "t v 3"]:
        """Return the mesh as a program bends it that knows the rig alone; origin as SMPL's."""
        meshes = [
            _apply(rotation, self.vertices) + translation
            for rotation, translation in self._blended(rotmat)
        ]
        return np.stack(meshes)

    def unposed(
        self, posed: Float[np.ndarray, "v 3"], rotmat: Float[np.ndarray, "24 3 3"]
    ) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"]]:
        """Return the rest mesh, and its normals, that this pose bends into a given mesh.

        So the given mesh's pose correctives, and any weights beyond four, are in the rest mesh.

        Args:
            posed: a mesh of these faces, origin as SMPL's.
            rotmat: its pose.
        """
        ((rotation, translation),) = self._blended(rotmat[None])
        turned = torch.from_numpy(rotation)  # whose inverse of many matrices is the faster one
        damped = turned @ turned.mT + DAMPING * torch.eye(3, dtype=torch.float64)
        back = (turned.mT @ torch.linalg.inv(damped)).numpy()
        rest = self.vertices.astype(np.float64)
        vertices = rest + _apply(back, posed - translation - _apply(rotation, rest))
        normals = _apply(back, normals_of(posed, self.faces))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), DAMPING)
        return vertices.astype(np.float32), normals.astype(np.float32)

    def _blended(
        self, rotmat: Float[np.ndarray, "t 24 3 3"]
    ) -> Iterator[tuple[Float64[np.ndarray, "v 3 3"], Float64[np.ndarray, "v 3"]]]:
        """Return each vertex's own transform, frame by frame."""
        turned, moved = self.transforms(rotmat)
        weights = self.dense_weights.astype(np.float64)
        for rotation, translation in zip(turned, moved, strict=True):
            yield (weights @ rotation.reshape(-1, 9)).reshape(-1, 3, 3), weights @ translation


class Motion(NamedTuple):
    """A rig's poses, y up, facing +z when it faces the camera: what animation files hold."""

    rotations: Float64[np.ndarray, "t 24 3 3"]
    """Of each joint relative to its parent; of the first, to the world."""
    root: Float64[np.ndarray, "t 3"]
    """Where the first joint is, metres."""

    @classmethod
    def of(cls, rotmat: Float[np.ndarray, "t 24 3 3"], root: Float[np.ndarray, "t 3"]) -> "Motion":
        """Turn poses from the camera's frame.

        Args:
            rotmat: see `PersonResult.rotmat`.
            root: places of the first joint, camera frame, metres.
        """
        rotations = rotmat.astype(np.float64)
        rotations[:, 0] *= CAMERA_TO_Y_UP[:, None]
        return cls(rotations, root * CAMERA_TO_Y_UP)


class SkinningError(NamedTuple):
    """How far a rig's vertices are from the body's own, metres, over all vertices and frames."""

    mean: float
    largest: float


def skinning_error(rig: Rig, rotmat: Float[np.ndarray, "t 24 3 3"]) -> SkinningError:
    """Measure what a rig leaves out in these poses: pose correctives and weights beyond four."""
    detail = rig.detail
    assert detail is not None, "the rig was made without detail"
    turned, moved = rig.transforms(rotmat)
    posedirs = detail.posedirs.reshape(-1, detail.posedirs.shape[2])  # (3 v, 207)
    dropped = rig.dropped_weights
    total, largest = 0.0, 0.0
    for start in range(0, len(rotmat), FRAMES_AT_ONCE):
        features = (rotmat[start : start + FRAMES_AT_ONCE, 1:] - np.eye(3)).astype(np.float32)
        offsets = posedirs @ features.reshape(len(features), -1).T  # (3 v, frames)
        for number, offset in enumerate(np.ascontiguousarray(offsets.T), start):
            rotation = turned[number].astype(np.float32).reshape(-1, 9)
            blended = (detail.lbs_weights @ rotation).reshape(-1, 3, 3)
            away = _apply(blended, offset.reshape(-1, 3))
            if dropped is not None:
                away += _apply((dropped @ rotation).reshape(-1, 3, 3), rig.vertices)
                away += dropped @ moved[number].astype(np.float32)
            distances = np.linalg.norm(away, axis=1)
            total += float(distances.mean(dtype=np.float64))
            largest = max(largest, float(distances.max()))
    return SkinningError(total / len(rotmat), largest)


def four_largest(
    weights: Float[np.ndarray, "v 24"],
) -> tuple[UInt8[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
    """Return the joints of each vertex's largest weights, and these, made to add up to 1.

    A joint of weight 0 is number 0, as glTF recommends.
    """
    index = np.argsort(-weights, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    largest = np.take_along_axis(weights, index, axis=1).astype(np.float64)
    largest = np.maximum(largest, 0)
    shares = (largest / largest.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.where(shares > 0, index, 0).astype(np.uint8), shares


def normals_of(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """Unit normals that point outwards, see `vertex_normals`."""
    return vertex_normals(torch.from_numpy(vertices)[None], torch.from_numpy(faces))[0].numpy()


def _apply(
    matrices: Float[np.ndarray, "v 3 3"], points: Float[np.ndarray, "v 3"]
) -> Float[np.ndarray, "v 3"]:
    """Return each point turned by its own matrix."""
    return np.einsum("vab,vb->va", matrices, points)
