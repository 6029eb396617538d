"""Everything that a person can consist of, as one list of vertices and faces.

Body and garments are layers of SMPL's kind (Loper et al., SIGGRAPH Asia 2015): a template, shape
directions, four skinning weights a vertex; pose correctives are borrowed from the nearest vertex
of the body. As all layers share one list, a batch of differently dressed people is a list of
indices, on the CPU as on a GPU.

Rest frame: metres, x to the body's left, y up, z forward.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from smpler.utils.joints import NUM_JOINTS

NUM_WEIGHTS = 4
"""Skinning weights of a vertex."""
RIGID = -1
"""Anchor of a vertex without pose correctives."""


class BodyArrays(Protocol):
    """The arrays of a body that the data engine uses; `smpler.models.body.Body` has them."""

    @property
    def v_template(self) -> Float[np.ndarray, "v 3"]:
        """Rest pose, metres."""
        ...

    @property
    def shapedirs(self) -> Float[np.ndarray, "v 3 10"]:
        """What each beta adds."""
        ...

    @property
    def posedirs(self) -> Float[np.ndarray, "v 3 207"]:
        """What each pose feature adds."""
        ...

    @property
    def J_regressor(self) -> Float[np.ndarray, "24 v"]:
        """Joints of the rest pose from its vertices."""
        ...

    @property
    def lbs_weights(self) -> Float[np.ndarray, "v 24"]:
        """Skinning weights."""
        ...

    @property
    def faces(self) -> Int[np.ndarray, "f 3"]:
        """Triangles."""
        ...

    @property
    def h36m_regressor(self) -> Float[np.ndarray, "17 v"] | None:
        """Human3.6M's joints from posed vertices."""
        ...


@dataclass(frozen=True, eq=False)
class Mesh:
    """The arrays of one layer, before they join the list.

    At betas b its vertices at rest are `v_template + shapedirs @ b`. The pose correctives of the
    body's vertices `anchor` are added to them, then they are skinned as the body's are.
    """

    v_template: Float[np.ndarray, "n 3"]
    shapedirs: Float[np.ndarray, "n 3 10"]
    lbs_indices: Int[np.ndarray, "n 4"]
    """Joints, of SMPL's 24, that move a vertex."""
    lbs_weights: Float[np.ndarray, "n 4"]
    anchor: Int[np.ndarray, "n"]
    """Body vertex whose pose correctives a vertex borrows, or RIGID."""
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "f 3 2"]
    """Of the faces' corners, [0, 1]: (0, 0) is the texture's top-left corner, u right, v down."""

    def subset(self, chosen: np.ndarray) -> "Mesh":
        """Return some of the faces, with the vertices that they use."""
        used, faces = np.unique(self.faces[chosen], return_inverse=True)  # faces: into `used`
        vertex = (getattr(self, name)[used] for name in VERTEX_FIELDS)
        return Mesh(*vertex, faces.reshape(-1, 3), self.uv[chosen])


VERTEX_FIELDS = ("v_template", "shapedirs", "lbs_indices", "lbs_weights", "anchor")
"""Fields of a mesh with a row per vertex."""


@dataclass(frozen=True)
class Layer:
    """Where a layer stands in the list, and how its surface behaves."""

    first_vertex: int
    num_vertices: int
    first_face: int
    num_faces: int
    cull: bool = False
    """Whether faces that show their inside are left out."""
    tested: bool = False
    """Whether transparent texels are holes."""
    brightness: float = 0.5
    """Mean linear luminance of its own texture, where a face shows it."""


@dataclass(eq=False)
class Layers:
    """The list of all layers: `add` them, then `close` it."""

    vertex: dict[str, np.ndarray] = field(default_factory=dict)
    """VERTEX_FIELDS of all layers, one layer behind the other."""
    faces: Int[np.ndarray, "f 3"] | None = None
    """Indices into the layer's own vertices."""
    uv: Float[np.ndarray, "f 3 2"] | None = None
    part: Int[np.ndarray, "f"] | None = None
    """1 + the SMPL joint that moves a face most."""
    table: list[Layer] = field(default_factory=list)
    _meshes: list[Mesh] = field(default_factory=list)

    def add(self, mesh: Mesh, **surface) -> int:
        """Append a layer; return its number."""
        last = self.table[-1] if self.table else Layer(0, 0, 0, 0)
        first_vertex = last.first_vertex + last.num_vertices
        first_face = last.first_face + last.num_faces
        sizes = (first_vertex, len(mesh.v_template), first_face, len(mesh.faces))
        self.table.append(Layer(*sizes, **surface))
        self._meshes.append(mesh)
        return len(self.table) - 1

    def close(self) -> "Layers":
        """Join the arrays of all layers; return the list."""
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
    """Return 1 + the joint with the largest weight on each face."""
    moved = np.zeros((len(mesh.v_template), NUM_JOINTS))
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
    """Return the pose correctives without zeros: only the joints near a vertex move it.

    Returns:
        first (v + 1,), joint (k,) and value (k, 3, 9). The entries first[v] : first[v + 1] of joint
        and value are those of vertex v. Joints are counted from 0 for the first after the root.
    """
    num_vertices = len(body.v_template)
    # (v, 3, 207) -> (v, 3, 23, 9) -> (v, 23, 3, 9): a block per vertex and joint
    blocks = body.posedirs.reshape(num_vertices, 3, -1, 9).transpose(0, 2, 1, 3)
    vertex, joint = np.nonzero(np.abs(blocks).max(axis=(2, 3)))
    first = np.searchsorted(vertex, np.arange(num_vertices + 1))
    return first, joint, np.ascontiguousarray(blocks[vertex, joint], dtype=np.float32)


def connected_components(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f"]:
    """Return the number of the piece that each face belongs to; pieces share no vertex."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components as components

    count = faces.max() + 1
    rows, columns = np.concatenate([faces[:, :2], faces[:, 1:]]).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    return components(graph, directed=False)[1][faces[:, 0]]


def farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, "count"]:
    """Return indices of points that lie far from each other, starting with index 0."""
    chosen = np.zeros(count, np.int64)
    distance = np.full(len(points), np.inf)
    for k in range(1, count):
        distance = np.minimum(distance, ((points - points[chosen[k - 1]]) ** 2).sum(axis=1))
        chosen[k] = distance.argmax()
    return chosen
