"""Renders batches of scenes in torch; every array stays on the device.

Only the scenes' numbers come from the host, a few kilobytes each.
`smpler.datasets.engine.render.numba_renderer` does the same for one scene on one CPU core; the two
agree within rounding.

Sizes: b scenes, a actors and m layers in all (see `SceneBatch`), n vertices and f faces of those.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smpler.datasets.engine.people import People
from smpler.datasets.engine.render.constants import Constant
from smpler.datasets.engine.render.result import RenderedBatch, Rendering
from smpler.datasets.engine.render.scene_batch import (
    MeshSizes,
    SceneBatch,
    mesh_sizes,
    pack_scenes,
)
from smpler.datasets.engine.render.torch_mesh import BatchMesh, PackedBatch
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
from smpler.utils.drawing.rasterizer import Fragments, rasterize_packed
from smpler.utils.image import CROP_SIZE

_ASIDE, _MIDDLE = Constant(ASIDE), Constant([0.5, 0.5, 0.0])

Lap = Callable[[str], None]
"""Called with the name of a part of the work when that has been queued."""


def no_lap(part: str) -> None:
    """Note nothing."""


class TorchRenderer:
    """Renders batches of scenes of some people in some places.

    Args:
        device: where everything is kept and computed.
    """

    def __init__(self, people: People, panoramas: Sequence[Panorama], device: torch.device | str):
        self.device = torch.device(device)

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        layers = people.layers
        self.mesh = BatchMesh(people, self.device)
        self.uv = put(layers.uv)
        self.part = put(layers.part.astype(np.int64))
        self.cull = put(np.array([row.cull for row in layers.table]))
        self.tested = put(np.array([row.tested for row in layers.table]))
        self.textures = put(people.textures)
        encoded = [encode_panorama(panorama.image) for panorama in panoramas]
        self.panoramas = put(np.stack([image for image, _ in encoded]))
        self.white = put(np.array([white for _, white in encoded], np.float32))
        self.pattern = put(people.noise_pattern())

    @torch.no_grad()
    def render(
        self,
        scenes: SceneBatch,
        margin: int = 0,
        sizes: MeshSizes | None = None,
        lap: Lap = no_lap,
    ) -> RenderedBatch:
        """Return what the scenes' cameras see, with `margin` more pixels on every side.

        Args:
            scenes: on the renderer's device.
            margin: pixels.
            sizes: of the scenes' mesh; without them, the device is asked.
            lap: called after each part.
        """
        # (b, side, side) pictures are rasterised at (b, SAMPLES * side, SAMPLES * side).
        numbers = scenes | {"center": scenes["center"] + margin}
        packed = self.mesh.pack(numbers, sizes)
        lap("pack")
        fragments = self._rasterize(packed, numbers, CROP_SIZE + 2 * margin)
        lap("rasterise")
        light = self._shadow_maps(packed, numbers)
        lap("shadow_maps")
        color = self._shade(fragments, packed, numbers, light)
        lap("shading")
        alpha = _mean_of_samples((fragments.face_index >= 0).float())
        full = alpha == 1
        around = backdrop(self.panoramas, self.white, self.pattern, numbers, light, full)
        picture = _mean_of_samples(color) + around * (1 - alpha[..., None])
        lap("backdrop")
        depth, parts, mask = self._subject(fragments, packed, numbers)
        # (b, v): rows of the subjects' bodies among the n vertices
        rows = packed.body[:, None] + torch.arange(self.mesh.num_body_vertices, device=self.device)
        lap("subject")
        return RenderedBatch(picture, alpha, mask, depth, parts, packed.vertices[rows])

    def _rasterize(self, packed: PackedBatch, numbers: SceneBatch, side: int) -> Fragments:
        """Find what the cameras see in each sample of (b, side, side) pictures."""
        scale, center = (SAMPLES * numbers[name] for name in ("focal", "center"))
        z = packed.vertices[:, 2:]
        item = packed.vertex_item
        places = center[item] + scale[item, :1] * packed.vertices[:, :2] / z
        points = torch.cat([places, torch.where(z < float(NEAREST), torch.nan, z)], dim=1)
        layer = numbers["layer"][packed.material]  # (f,)
        return rasterize_packed(
            points,
            packed.faces,
            packed.item,
            (len(numbers["focal"]), SAMPLES * side, SAMPLES * side),
            two_sided=~self.cull[layer],
            perspective=True,
            tested=self.tested[layer],
            accept=lambda face, weights: self._is_solid(packed, numbers, face, weights),
        )

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
        light["to_sun"] = _shadow_camera(low, high, light["sun"], SUN_MAP_SIZE)
        light["to_sky"] = _shadow_camera(low, high, numbers["ground"][:, :3], SKY_MAP_SIZE)
        # Both kinds of maps at once, as 2 * b pictures of the larger size: a map's camera sees
        # everything within the map's own size.
        points = torch.cat(
            [
                transformed(to_map[packed.vertex_item], packed.vertices)
                for to_map in (light["to_sun"], light["to_sky"])
            ]
        )
        batch, size = len(extreme), max(SUN_MAP_SIZE, SKY_MAP_SIZE)
        faces = torch.cat([packed.faces, packed.faces + len(packed.vertices)])
        item = torch.cat([packed.item, packed.item + batch])
        two_sided = torch.ones_like(item, dtype=torch.bool)
        depth = rasterize_packed(points, faces, item, (2 * batch, size, size), two_sided).depth
        light["sun_map"] = depth[:batch, :SUN_MAP_SIZE, :SUN_MAP_SIZE]
        light["sky_map"] = depth[batch:, :SKY_MAP_SIZE, :SKY_MAP_SIZE]
        return light

    def _shade(
        self,
        fragments: Fragments,
        packed: PackedBatch,
        numbers: SceneBatch,
        light: dict[str, Tensor],
    ) -> Float[Tensor, "b h w 3"]:
        """Return the colour of every sample; 0 where it shows the surroundings."""
        face_index, pixel = fragments.face_index.flatten(), fragments.covered  # (b * h * w,), (p,)
        face, weights = face_index[pixel], fragments.barycentric.flatten(0, 2)[pixel, :, None]
        corners = packed.faces[face]  # (p, 3); (p, 3, c) * (p, 3, 1) summed over corners -> (p, c)
        point, normal = ((x[corners] * weights).sum(1) for x in (packed.vertices, packed.normals))
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
        pixel = fragments.covered
        face = fragments.face_index.flatten()[pixel]
        own = numbers["is_subject"][packed.material[face]]  # (p,)

        def image(value: Tensor, elsewhere: float) -> Tensor:
            """Return (b, h, w) samples: values (p,) where they show the subject."""
            everywhere = value.new_full((fragments.face_index.numel(),), elsewhere)
            everywhere.index_copy_(0, pixel, torch.where(own, value, elsewhere))
            return everywhere.view(fragments.face_index.shape)

        depth = _samples(image(fragments.depth.flatten()[pixel], torch.inf))
        part = _samples(image(self.part[packed.source[face]], 0))
        nearest, sample = depth.min(dim=-1)  # (b, s, s, SAMPLES ** 2) -> (b, s, s)
        mask = _mean_of_samples(image(own.float(), 0))
        return nearest, part.gather(-1, sample[..., None])[..., 0], mask


class TorchSceneRenderer:
    """One scene at a time, on the CPU: stands in for `numba_renderer.NumbaRenderer`."""

    def __init__(self, people: People, panoramas: Sequence[Panorama]):
        self.people = people
        self.batches = TorchRenderer(people, panoramas, "cpu")

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with `margin` more pixels on every side."""
        numbers = pack_scenes([scene], len(self.people.hidden_faces))
        batch = self.batches.render(numbers, margin, mesh_sizes([scene], self.people))
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
    aside = _ASIDE.like(towards).expand_as(towards)
    across = F.normalize(torch.linalg.cross(towards, aside), dim=1)
    axes = torch.stack([across, torch.linalg.cross(towards, across), -towards], dim=1)
    middle, reach = (low + high) / 2, (high - low).norm(dim=1) / 2
    scale = torch.ones_like(axes[..., :1])
    scale[:, :2] = (size / (2 * reach))[:, None, None]
    axes = axes * scale
    offset = size * _MIDDLE.like(low) - (axes @ middle[..., None])[..., 0]
    return torch.cat([axes, offset[..., None]], dim=2)


def _samples(values: Tensor) -> Tensor:
    """Gather each pixel's samples: (b, h * SAMPLES, w * SAMPLES) -> (b, h, w, SAMPLES ** 2)."""
    values = values.unflatten(1, (-1, SAMPLES)).unflatten(3, (-1, SAMPLES))
    return values.transpose(2, 3).flatten(3, 4)


def _mean_of_samples(values: Tensor) -> Tensor:
    """Average each pixel's samples: (b, h * SAMPLES, w * SAMPLES, ...) -> (b, h, w, ...)."""
    values = values.unflatten(1, (-1, SAMPLES)).unflatten(3, (-1, SAMPLES))
    return values.mean(dim=(2, 4))
