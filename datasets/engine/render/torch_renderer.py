"""Renders batches of scenes in torch; every array stays on the device.

Only the scenes' numbers come from the host, a few kilobytes each.
`smpler.datasets.engine.render.numba_renderer` does the same for one scene on one CPU core; the two
agree within rounding.

Sizes: b scenes, a actors and m layers in all (see `SceneBatch`), n vertices and f faces of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smpler.datasets.engine.layers import RIGID
from smpler.datasets.engine.people import People
from smpler.datasets.engine.render.result import RenderedBatch, Rendering
from smpler.datasets.engine.render.scene_batch import SceneBatch, pack_scenes
from smpler.datasets.engine.render.torch_shading import backdrop, shade, texels, transformed
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.surfaces import (
    ASIDE,
    NEAREST,
    SAMPLES,
    SKY_MAP_SIZE,
    SUN_MAP_SIZE,
    TRANSPARENT,
    encode_panorama,
)
from smpler.datasets.engine.wardrobe import Panorama
from smpler.utils.drawing.rasterizer import Fragments, expand_counts, rasterize_packed
from smpler.utils.geometry import vertex_normals
from smpler.utils.image import CROP_SIZE


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """All actors of all scenes as one mesh in the camera frame."""

    vertices: Float[Tensor, "n 3"]
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


class TorchRenderer:
    """Renders batches of scenes of some people in some places.

    Args:
        device: where everything is kept and computed.
    """

    def __init__(self, people: People, panoramas: Sequence[Panorama], device: torch.device | str):
        self.device = torch.device(device)

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        layers, body = people.layers, people.body
        self.vertex = {name: put(array) for name, array in layers.vertex.items()}
        self.faces, self.uv = put(layers.faces.astype(np.int64)), put(layers.uv)
        self.part = put(layers.part.astype(np.int64))
        rows = [(x.first_vertex, x.num_vertices, x.first_face, x.num_faces) for x in layers.table]
        self.table = put(np.array(rows))
        self.cull = put(np.array([row.cull for row in layers.table]))
        self.tested = put(np.array([row.tested for row in layers.table]))
        self.textures, self.hidden_faces = put(people.textures), put(people.hidden_faces)
        # (v, 3, 207) -> (207, 3 * v)
        self.posedirs = put(body.posedirs.reshape(-1, body.posedirs.shape[-1]).T)
        self.num_body_vertices, self.num_body_faces = len(body.v_template), len(body.faces)
        encoded = [encode_panorama(panorama.image) for panorama in panoramas]
        self.panoramas = put(np.stack([image for image, _ in encoded]))
        self.white = put(np.array([white for _, white in encoded], np.float32))
        self.pattern = put(people.noise_pattern())

    @torch.no_grad()
    def render(self, scenes: SceneBatch, margin: int = 0) -> RenderedBatch:
        """Return what the scenes' cameras see, with `margin` more pixels on every side.

        Args:
            scenes: on the renderer's device.
        """
        # (b, side, side) pictures are rasterised at (b, SAMPLES * side, SAMPLES * side).
        numbers = scenes | {"center": scenes["center"] + margin}
        packed = self._pack(numbers)
        side = CROP_SIZE + 2 * margin
        scale, center = (SAMPLES * numbers[name] for name in ("focal", "center"))
        z = packed.vertices[:, 2:]
        item = packed.vertex_item
        places = center[item] + scale[item, :1] * packed.vertices[:, :2] / z
        points = torch.cat([places, torch.where(z < float(NEAREST), torch.nan, z)], dim=1)
        layer = numbers["layer"][packed.material]  # (f,)
        fragments = rasterize_packed(
            points,
            packed.faces,
            packed.item,
            (len(numbers["focal"]), SAMPLES * side, SAMPLES * side),
            two_sided=~self.cull[layer],
            perspective=True,
            tested=self.tested[layer],
            accept=lambda face, weights: self._is_solid(packed, numbers, face, weights),
        )
        light = self._shadow_maps(packed, numbers)
        color = self._shade(fragments, packed, numbers, light)
        around = backdrop(self.panoramas, self.white, self.pattern, numbers, light, side)
        hit = fragments.face_index >= 0
        alpha = _mean_of_samples(hit.float())
        picture = _mean_of_samples(color) + around * (1 - alpha[..., None])
        depth, parts, mask = self._subject(fragments, packed, numbers)
        # (b, v): rows of the subjects' bodies among the n vertices
        rows = packed.body[:, None] + torch.arange(self.num_body_vertices, device=self.device)
        return RenderedBatch(picture, alpha, mask, depth, parts, packed.vertices[rows])

    def _pack(self, numbers: SceneBatch) -> PackedBatch:
        """Pose all actors and join their layers, without the faces of bodies that clothes hide."""
        first_vertex, num_vertices, first_face, num_faces = self.table[numbers["layer"]].T  # (m,)
        material, offset = expand_counts(num_vertices)  # (n,)
        vertices = self._pose(first_vertex[material] + offset, numbers["actor"][material], numbers)
        starts = num_vertices.cumsum(0) - num_vertices  # (m,): where a layer's vertices start in n
        vertex_item = numbers["item"][material]
        material, offset = expand_counts(num_faces)  # (f,), with the hidden faces
        source = first_face[material] + offset
        hidden = (numbers["hiding"].float() @ self.hidden_faces.float()) > 0  # (a, body faces)
        is_body = source < self.num_body_faces
        on_body = source.clamp(max=self.num_body_faces - 1)
        drawn = ~(is_body & hidden[numbers["actor"][material], on_body])
        material, source = material[drawn], source[drawn]  # (f,)
        return PackedBatch(
            vertices=vertices,
            vertex_item=vertex_item,
            faces=self.faces[source] + starts[material, None],
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

    def _is_solid(
        self,
        packed: PackedBatch,
        numbers: SceneBatch,
        face: Int[Tensor, "n"],
        weights: Float[Tensor, "n 3"],
    ) -> Bool[Tensor, "n"]:
        """Say where on faces their texture has no hole."""
        size = self.textures.shape[1]
        u, v = (self.uv[packed.source[face]] * weights[..., None]).sum(1).T  # (n, 3, 2) -> (n,)
        row, column = (v * size).long() % size, (u * size).long() % size
        texture = numbers["texture"][packed.material[face]]
        return self.textures[texture, row, column, 3] >= TRANSPARENT

    def _shadow_maps(self, packed: PackedBatch, numbers: SceneBatch) -> dict[str, Tensor]:
        """Return the light of each scene: `shade` says what is in it."""
        light = {name: numbers[name] for name in ("sh", "sun", "sun_color")}
        item = packed.vertex_item[:, None].expand(-1, 3)
        extreme = torch.zeros(len(light["sun"]), 3, device=self.device)
        low, high = (
            extreme.scatter_reduce(0, item, packed.vertices, way, include_self=False)
            for way in ("amin", "amax")
        )
        for name, towards, size in (
            ("sun", light["sun"], SUN_MAP_SIZE),
            ("sky", numbers["ground"][:, :3], SKY_MAP_SIZE),
        ):
            to_map = _shadow_camera(low, high, towards, size)
            points = transformed(to_map[packed.vertex_item], packed.vertices)
            two_sided = torch.ones_like(packed.item, dtype=torch.bool)
            shape = (len(to_map), size, size)
            seen = rasterize_packed(points, packed.faces, packed.item, shape, two_sided)
            light[f"to_{name}"], light[f"{name}_map"] = to_map, seen.depth
        return light

    def _shade(
        self,
        fragments: Fragments,
        packed: PackedBatch,
        numbers: SceneBatch,
        light: dict[str, Tensor],
    ) -> Float[Tensor, "b h w 3"]:
        """Return the colour of every sample; 0 where it shows the surroundings."""
        normals = vertex_normals(packed.vertices[None], packed.faces)[0]
        face_index = fragments.face_index.flatten()  # (b * h * w,)
        pixel = (face_index >= 0).nonzero()[:, 0]  # (p,): those that show a face
        face, weights = face_index[pixel], fragments.barycentric.flatten(0, 2)[pixel, :, None]
        corners = packed.faces[face]  # (p, 3); (p, 3, c) * (p, 3, 1) summed over corners -> (p, c)
        point, normal = ((x[corners] * weights).sum(1) for x in (packed.vertices, normals))
        u, v = (self.uv[packed.source[face]] * weights).sum(1).T
        material = packed.material[face]
        texel = texels(self.textures, numbers["texture"][material], u, v)
        albedo = transformed(numbers["matrix"][material], texel)
        two_sided = ~self.cull[numbers["layer"][material]]
        highlight = numbers["highlight"][material]
        shone = shade(point, normal, albedo, highlight, two_sided, packed.item[face], light)
        color = torch.zeros(len(face_index), 3, device=self.device).index_copy(0, pixel, shone)
        return color.view(*fragments.face_index.shape, 3)

    def _subject(
        self, fragments: Fragments, packed: PackedBatch, numbers: SceneBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return depth, body part and coverage of the subject in every pixel, (b, s, s) each."""
        face = fragments.face_index.clamp(min=0)
        own = (fragments.face_index >= 0) & numbers["is_subject"][packed.material[face]]
        depth = _samples(torch.where(own, fragments.depth, torch.inf))
        part = _samples(torch.where(own, self.part[packed.source[face]], 0))
        nearest, sample = depth.min(dim=-1)  # (b, s, s, SAMPLES ** 2) -> (b, s, s)
        return nearest, part.gather(-1, sample[..., None])[..., 0], _mean_of_samples(own.float())


class TorchSceneRenderer:
    """One scene at a time, on the CPU: stands in for `numba_renderer.NumbaRenderer`."""

    def __init__(self, people: People, panoramas: Sequence[Panorama]):
        self.num_garments = len(people.hidden_faces)
        self.batches = TorchRenderer(people, panoramas, "cpu")

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with `margin` more pixels on every side."""
        batch = self.batches.render(pack_scenes([scene], self.num_garments), margin)
        arrays = {field.name: getattr(batch, field.name)[0].numpy() for field in fields(batch)}
        return Rendering(**arrays | {"parts": arrays["parts"].astype(np.uint8)})


def _shadow_camera(
    low: Float[Tensor, "b 3"],
    high: Float[Tensor, "b 3"],
    towards: Float[Tensor, "b 3"],
    size: int,
) -> Float[Tensor, "b 3 4"]:
    """Return affine maps to pixels and depth of orthographic cameras that see all of some boxes."""
    # As `numba_renderer.shadow_camera`: right, down, away from the light.
    aside = torch.from_numpy(ASIDE).to(towards).expand_as(towards)
    across = torch.nn.functional.normalize(torch.linalg.cross(towards, aside), dim=1)
    axes = torch.stack([across, torch.linalg.cross(towards, across), -towards], dim=1)
    middle, reach = (low + high) / 2, (high - low).norm(dim=1) / 2
    scale = torch.ones_like(axes[..., :1])
    scale[:, :2] = (size / (2 * reach))[:, None, None]
    axes = axes * scale
    offset = torch.tensor([size / 2, size / 2, 0], device=low.device)
    offset = offset - (axes @ middle[..., None])[..., 0]
    return torch.cat([axes, offset[..., None]], dim=2)


def _samples(values: Tensor) -> Tensor:
    """Gather each pixel's samples: (b, h * SAMPLES, w * SAMPLES) -> (b, h, w, SAMPLES ** 2)."""
    values = values.unflatten(1, (-1, SAMPLES)).unflatten(3, (-1, SAMPLES))
    return values.transpose(2, 3).flatten(3, 4)


def _mean_of_samples(values: Tensor) -> Tensor:
    """Average each pixel's samples: (b, h * SAMPLES, w * SAMPLES, ...) -> (b, h, w, ...)."""
    values = values.unflatten(1, (-1, SAMPLES)).unflatten(3, (-1, SAMPLES))
    return values.mean(dim=(2, 4))
