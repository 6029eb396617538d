"""Parts of the torch renderer against slow and obvious versions of themselves."""

import numpy as np
import pytest
import torch
from torch import Tensor

from smpler.datasets.engine.render.constants import Constant
from smpler.datasets.engine.render.scene_batch import pack_scenes
from smpler.datasets.engine.render.torch_renderer import TorchRenderer
from smpler.datasets.engine.render.torch_shading import backdrop, reached, transformed
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.datasets.engine.surfaces import SHADOW_BIAS, SKY_MAP_SIZE, SUN_MAP_SIZE
from smpler.models.body import open_body
from smpler.utils.drawing.rasterizer import rasterize_packed
from smpler.utils.geometry import vertex_normals
from tests.datasets.engine.render.standin_gpu import DEVICE, StandInGPU
from tests.support.standin_wardrobe import Poses, wardrobe


@pytest.fixture(scope="module")
def drawn() -> tuple:
    """People, their renderer, two scenes as numbers and as a mesh, and the light in them."""
    body = open_body()
    stream = SyntheticPeople(body, wardrobe(body), Poses(), seed=5)
    renderer = TorchRenderer(stream.people, stream.panoramas, "cpu")
    scenes = [stream.scene(index) for index in (0, 1)]
    numbers = pack_scenes(scenes, len(stream.people.hidden_faces))
    packed = renderer.mesh.pack(numbers)
    return stream.people, renderer, scenes, numbers, packed, renderer._shadow_maps(packed, numbers)


def test_the_mesh_is_its_layers_without_what_clothes_hide(drawn):
    people, _, scenes, _, packed, _ = drawn
    first, faces, source, material = 0, [], [], 0
    for actor in (actor for scene in scenes for actor in scene.actors):
        for part in actor.parts:
            shown = people.visible_faces(part.layer, actor.hiding)
            faces.append(people.layers.faces[shown].astype(np.int64) + first)
            source.append(shown)
            assert (packed.material == material).sum() == len(shown)
            first, material = first + people.layers.table[part.layer].num_vertices, material + 1
    assert packed.faces.numpy().tolist() == np.concatenate(faces).tolist()
    assert packed.source.numpy().tolist() == np.concatenate(source).tolist()


def test_normals_are_those_of_the_faces_that_are_drawn(drawn):
    packed = drawn[4]
    expected = vertex_normals(packed.vertices[None], packed.faces)[0]
    assert torch.equal(packed.normals, expected)


def test_the_suns_and_the_skys_maps_are_those_of_two_passes(drawn):
    _, _, _, _, packed, light = drawn
    for name, size in (("sun", SUN_MAP_SIZE), ("sky", SKY_MAP_SIZE)):
        points = transformed(light[f"to_{name}"][packed.vertex_item], packed.vertices)
        two_sided = torch.ones_like(packed.item, dtype=torch.bool)
        expected = rasterize_packed(points, packed.faces, packed.item, (2, size, size), two_sided)
        assert torch.equal(light[f"{name}_map"], expected.depth), name
        assert expected.depth.isfinite().any()


def reached_plainly(
    points: Tensor, item: Tensor, to_map: Tensor, maps: Tensor, radius: int
) -> Tensor:
    """Look at each texel of the window: within the map, and nearer?"""
    size = maps.shape[1]
    place = transformed(to_map[item], points)
    column, row = place[:, :2].floor().long().unbind(1)
    shaded = torch.zeros_like(place[:, 2])
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            r, c = row + i, column + j
            within = (r >= 0) & (r < size) & (c >= 0) & (c < size)
            texel = maps[item, r.clamp(0, size - 1), c.clamp(0, size - 1)]
            shaded += within & (texel < place[:, 2] - float(SHADOW_BIAS))
    return 1 - shaded / (2 * radius + 1) ** 2


@pytest.mark.parametrize("radius", [1, 2])
def test_light_reaches_what_no_texel_round_it_hides(radius):
    """Also at the map's borders, far beyond them, and for what is no place at all."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 20, 20, generator=generator)
    maps[maps > 0.8] = torch.inf
    item = torch.randint(3, (5000,), generator=generator)
    to_map = torch.eye(3, 4).repeat(3, 1, 1)
    points = torch.rand(5000, 3, generator=generator) * torch.tensor([40.0, 40.0, 1.2])
    points[:, :2] -= 10
    points[:3] = torch.tensor([[1e9, 3, 1], [5, -1e9, 1], [torch.nan, torch.inf, 1]])
    found = reached(points, item, to_map, maps, radius)
    assert torch.equal(found, reached_plainly(points, item, to_map, maps, radius))
    assert 0.1 < found.mean() < 0.9


def test_surroundings_are_painted_where_they_are_seen(drawn):
    _, renderer, _, numbers, _, light = drawn
    painted = renderer.panoramas, renderer.white, renderer.pattern, numbers, light
    nowhere = torch.zeros(2, 32, 32, dtype=torch.bool)
    covered = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    everything, rest = backdrop(*painted, nowhere), backdrop(*painted, covered)
    assert torch.equal(rest, torch.where(covered[..., None], 0, everything))
    assert (everything > 0).all()


def test_a_constant_is_copied_to_a_device_once():
    constant = Constant([1.0, 2.0])
    with StandInGPU() as device:
        on_device = torch.zeros(2, device=DEVICE)
        sums = [on_device + constant.like(on_device) for _ in range(3)]
    assert device.copies["to"] == 1
    assert all(x.real_numbers.tolist() == [1, 2] for x in sums)
    assert constant.like(torch.zeros(2).double()).dtype == torch.float64
    assert constant.on(torch.device("cpu")) is constant.on(torch.device("cpu"))
