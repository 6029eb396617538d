"""Everything that a person can consist of, as one list of vertices, faces and textures.

Body and garments are layers of SMPL's kind (Loper et al., SIGGRAPH Asia 2015): a template, shape
directions, four skinning weights a vertex; pose correctives are borrowed from the nearest vertex
of the body. One list for all layers means that a batch of differently dressed people is a list of
indices, on the CPU as on a GPU.

Rest frame: metres, x to the body's left, y up, z forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from smpler.utils.joints import SMPL_NAMES

NUM_BETAS = 10
NUM_WEIGHTS = 4
RIGID = -1
"""Anchor of a vertex without pose correctives."""


class BodyArrays(Protocol):
    """What is needed of a body: `smpler.models.body.Body` has it."""

    v_template: Float[np.ndarray, "v 3"]
    shapedirs: Float[np.ndarray, "v 3 10"]
    posedirs: Float[np.ndarray, "v 3 207"]
    J_regressor: Float[np.ndarray, "24 v"]
    lbs_weights: Float[np.ndarray, "v 24"]
    faces: Int[np.ndarray, "f 3"]
    h36m_regressor: Float[np.ndarray, "17 v"] | None


@dataclass(frozen=True, eq=False)
class Mesh:
    """One layer's arrays before they join the list."""

    v_template: Float[np.ndarray, "n 3"]
    shapedirs: Float[np.ndarray, "n 3 10"]
    lbs_indices: Int[np.ndarray, "n 4"]
    """Joints, of SMPL's 24, that move a vertex."""
    lbs_weights: Float[np.ndarray, "n 4"]
    anchor: Int[np.ndarray, "n"]
    """Body vertex whose pose correctives a vertex borrows, or RIGID."""
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "f 3 2"]
    """Texture coordinates of the faces' corners: x right, y down, [0, 1] from edge to edge."""

    def subset(self, chosen: np.ndarray) -> "Mesh":
        """Return some of the faces, with the vertices that they use."""
        used, faces = np.unique(self.faces[chosen], return_inverse=True)
        vertex = (getattr(self, name)[used] for name in VERTEX_FIELDS)
        return Mesh(*vertex, faces.reshape(-1, 3), self.uv[chosen])


VERTEX_FIELDS = ("v_template", "shapedirs", "lbs_indices", "lbs_weights", "anchor")


@dataclass(frozen=True)
class Layer:
    """Where a layer stands in the list, and how its surface behaves."""

    name: str
    first_vertex: int
    num_vertices: int
    first_face: int
    num_faces: int
    cull: bool = False
    """Its inside is never seen."""
    tested: bool = False
    """Its texture has holes."""
    brightness: float = 0.5
    """Mean linear luminance of its own texture, where a face shows it."""


@dataclass(eq=False)
class Layers:
    """The list. Textures are sRGB with alpha, all of one size."""

    vertex: dict[str, np.ndarray] = field(default_factory=dict)
    """VERTEX_FIELDS of all layers, one behind the other."""
    faces: Int[np.ndarray, "f 3"] | None = None
    """Indices into the layer's own vertices."""
    uv: Float[np.ndarray, "f 3 2"] | None = None
    part: Int[np.ndarray, "f"] | None = None
    """1 + the SMPL joint that moves a face most."""
    table: list[Layer] = field(default_factory=list)
    _meshes: list[Mesh] = field(default_factory=list)

    def add(self, name: str, mesh: Mesh, **surface) -> int:
        """Append a layer; return its number."""
        last = self.table[-1] if self.table else Layer("", 0, 0, 0, 0)
        first_vertex = last.first_vertex + last.num_vertices
        first_face = last.first_face + last.num_faces
        sizes = (first_vertex, len(mesh.v_template), first_face, len(mesh.faces))
        self.table.append(Layer(name, *sizes, **surface))
        self._meshes.append(mesh)
        return len(self.table) - 1

    def close(self) -> "Layers":
        """Join what was added."""
        types = (np.float32, np.float32, np.int64, np.float32, np.int64)
        for name, dtype in zip(VERTEX_FIELDS, types, strict=True):
            joined = np.concatenate([getattr(mesh, name) for mesh in self._meshes])
            self.vertex[name] = np.ascontiguousarray(joined, dtype=dtype)
        self.faces = np.concatenate([mesh.faces for mesh in self._meshes]).astype(np.int32)
        self.uv = np.concatenate([mesh.uv for mesh in self._meshes]).astype(np.float32)
        self.part = np.concatenate([_parts(mesh) for mesh in self._meshes]).astype(np.uint8)
        self._meshes.clear()
        return self


def _parts(mesh: Mesh) -> Int[np.ndarray, "f"]:
    moved = np.zeros((len(mesh.v_template), len(SMPL_NAMES)))
    for index, weight in zip(mesh.lbs_indices.T, mesh.lbs_weights.T, strict=True):
        moved[np.arange(len(moved)), index] += weight
    return 1 + moved[mesh.faces].sum(axis=1).argmax(axis=1)


def body_mesh(body: BodyArrays, uv: Float[np.ndarray, "f 3 2"]) -> Mesh:
    """Return the body as a mesh; it keeps the four largest weights of each vertex."""
    index = np.argsort(-body.lbs_weights, axis=1, kind="stable")[:, :NUM_WEIGHTS]
    weights = np.take_along_axis(body.lbs_weights, index, axis=1)
    return Mesh(
        body.v_template,
        body.shapedirs,
        index,
        weights / weights.sum(axis=1, keepdims=True),
        np.arange(len(body.v_template)),
        body.faces,
        uv,
    )


def sparse_correctives(body: BodyArrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose correctives without their zeros: a vertex is moved by the joints near it alone.

    Returns:
        Of vertex v the entries first[v] : first[v + 1] of joint (k,), counted from 0 for the first
        after the root, and value (k, 3, 9).
    """
    num_vertices = len(body.v_template)
    blocks = body.posedirs.reshape(num_vertices, 3, -1, 9).transpose(0, 2, 1, 3)
    vertex, joint = np.nonzero(np.abs(blocks).max(axis=(2, 3)))
    first = np.searchsorted(vertex, np.arange(num_vertices + 1))
    return first, joint, np.ascontiguousarray(blocks[vertex, joint], dtype=np.float32)


def connected_components(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f"]:
    """Number of the piece that each face belongs to; pieces share no vertex."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components as components

    count = faces.max() + 1
    rows, columns = np.concatenate([faces[:, :2], faces[:, 1:]]).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    return components(graph, directed=False)[1][faces[:, 0]]


def farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, "count"]:
    """Indices of points that lie far from each other, the first one first."""
    chosen = np.zeros(count, np.int64)
    distance = np.full(len(points), np.inf)
    for k in range(1, count):
        distance = np.minimum(distance, ((points - points[chosen[k - 1]]) ** 2).sum(axis=1))
        chosen[k] = distance.argmax()
    return chosen


def concatenated_ranges(starts: Sequence[int], counts: Sequence[int]) -> Int[np.ndarray, "n"]:
    """Return start, start + 1, ... of one range after the other."""
    return np.concatenate([np.arange(s, s + n) for s, n in zip(starts, counts, strict=True)])
