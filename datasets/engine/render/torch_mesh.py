"""All actors of a batch of scenes as one mesh, on any device.

Sizes: b scenes, a actors and m layers in all (see `SceneBatch`), n vertices and f faces of those.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smpler.datasets.engine.layers import RIGID
from smpler.datasets.engine.people import People
from smpler.datasets.engine.render.scene_batch import MeshSizes, SceneBatch
from smpler.datasets.engine.render.torch_shading import transformed
from smpler.utils.drawing.rasterizer import expand_counts


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """All actors of all scenes as one mesh in the camera frame."""

    vertices: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Of length 1, or 0 where a vertex has no face."""
    vertex_item: Int[Tensor, "n"]
    """Scene that a vertex belongs to."""
    faces: Int[Tensor, "f 3"]
    source: Int[Tensor, "f"]
    """Each face's number in the layers."""
    material: Int[Tensor, "f"]
    """Each face's layer among the m."""
    item: Int[Tensor, "f"]
    """Scene that a face belongs to."""
    body: Int[Tensor, "b"]
    """First vertex of each scene's subject."""


class BatchMesh:
    """Poses and joins the layers that people consist of.

    Args:
        device: where they are kept.
    """

    def __init__(self, people: People, device: torch.device):
        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        layers, body = people.layers, people.body
        self.vertex = {name: put(array) for name, array in layers.vertex.items()}
        self.faces = put(layers.faces.astype(np.int64))
        rows = [(x.first_vertex, x.num_vertices, x.first_face, x.num_faces) for x in layers.table]
        self.table = put(np.array(rows))
        self.hidden_faces = put(np.asarray(people.hidden_faces, np.float32))
        # The faces round each vertex, as numbers within their layer, and how many they are. A layer
        # has three times as many of them as faces: as rows of three, they lie where its faces do.
        first_vertex, _, first_face, num_faces = np.array(rows).T
        corners = (layers.faces + first_vertex.repeat(num_faces)[:, None]).ravel()  # of all faces
        adjacent = np.argsort(corners, kind="stable") // 3
        self.adjacent = put((adjacent - first_face.repeat(3 * num_faces)).reshape(-1, 3))
        self.valence = put(np.bincount(corners, minlength=len(layers.vertex["anchor"])))
        # (v, 3, 207) -> (207, 3 * v)
        self.posedirs = put(body.posedirs.reshape(-1, body.posedirs.shape[-1]).T)
        self.num_body_vertices, self.num_body_faces = len(body.v_template), len(body.faces)

    def pack(self, numbers: SceneBatch, sizes: MeshSizes | None = None) -> PackedBatch:
        """Pose all actors and join their layers, without the faces of bodies that clothes hide.

        Args:
            sizes: of the mesh; without them, the device is asked.
        """
        total_vertices, total_faces, total_drawn = sizes or (None, None, None)
        first_vertex, num_vertices, first_face, num_faces = self.table[numbers["layer"]].T  # (m,)
        material, offset = expand_counts(num_vertices, total_vertices)  # (n,)
        row = first_vertex[material] + offset
        vertices = self._pose(row, numbers["actor"][material], numbers)
        starts = num_vertices.cumsum(0) - num_vertices  # (m,): where a layer's vertices start in n
        vertex_item = numbers["item"][material]
        material, offset = expand_counts(num_faces, total_faces)  # (f,), with the hidden faces
        source = first_face[material] + offset
        hidden = (numbers["hiding"].float() @ self.hidden_faces) > 0  # (a, body faces)
        is_body = source < self.num_body_faces
        on_body = source.clamp(max=self.num_body_faces - 1)
        drawn = ~(is_body & hidden[numbers["actor"][material], on_body])
        faces = self.faces[source] + starts[material, None]
        first_of_batch = num_faces.cumsum(0) - num_faces  # (m,): where a layer's faces start in f
        adjacent = self.adjacent[source] + first_of_batch[material, None]  # (f, 3)
        normals = _vertex_normals(vertices, faces, drawn, adjacent.flatten(), self.valence[row])
        if total_drawn is None:
            kept = drawn.nonzero()[:, 0]
        else:
            kept = drawn.nonzero_static(size=total_drawn)[:, 0]
        material, source = material[kept], source[kept]  # (f,)
        return PackedBatch(
            vertices=vertices,
            normals=normals,
            vertex_item=vertex_item,
            faces=faces[kept],
            source=source,
            material=material,
            item=numbers["item"][material],
            body=starts[numbers["first_layer"]],
        )

    def _pose(
        self, row: Int[Tensor, "n"], actor: Int[Tensor, "n"], numbers: SceneBatch
    ) -> Float[Tensor, "n 3"]:
        """Blend shapes, add pose correctives and skin (SMPL, eq. 2 to 9).

        Args:
            row: of each vertex in the layers' list.
            actor: that wears it.
        """
        vertex = {name: array[row] for name, array in self.vertex.items()}
        betas = numbers["betas"][actor]
        # (n, 3, 10) * (n, 1, 10) -> (n, 3)
        rest = vertex["v_template"] + (vertex["shapedirs"] * betas[:, None]).sum(dim=2)
        # (a, 207) @ (207, 3 * v) -> (a, v, 3)
        offsets = (numbers["feature"] @ self.posedirs).unflatten(1, (-1, 3))
        borrowed = offsets[actor, vertex["anchor"].clamp(min=0)]
        rest = rest + torch.where(vertex["anchor"][:, None] == RIGID, 0, borrowed)
        transforms = numbers["transforms"]
        blended = torch.zeros(len(rest), 3, 4, device=rest.device)
        for joint, weight in zip(vertex["lbs_indices"].T, vertex["lbs_weights"].T, strict=True):
            blended += weight[:, None, None] * transforms[actor, joint]
        return transformed(blended, rest)


def _vertex_normals(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "f 3"],
    drawn: Bool[Tensor, "f"],
    adjacent: Int[Tensor, "3*f"],
    valence: Int[Tensor, "n"],
) -> Float[Tensor, "n 3"]:
    """Return what `smpler.utils.geometry.vertex_normals` does, without sorting the corners.

    Args:
        drawn: faces that count.
        adjacent: the faces round each vertex, one vertex after the other.
        valence: how many there are round each.
    """
    corners = vertices[faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.where(drawn[:, None], normals, 0)[adjacent]
    # `unsafe`: the lengths are not checked, for which a GPU would be waited for
    sums = torch.segment_reduce(  # ty: ignore[missing-attribute]  # absent from torch's stubs
        normals, "sum", lengths=valence, initial=0.0, unsafe=True
    )
    return F.normalize(sums, dim=-1)
