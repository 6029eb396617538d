import sys
import types

import numpy as np
import pytest
import torch

from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing import pytorch3d_rasterizer, rasterizer
from smpler.utils.drawing.rasterizer import interpolate, rasterize, rasterize_packed


def brute_force(vertices, faces, height, width, cull=True, perspective=False):
    """Every pixel against every triangle, float64: face index and depth of the nearest."""
    index = np.full((height, width), -1)
    depth = np.full((height, width), np.inf)
    for number, face in enumerate(faces):
        (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = vertices[face].astype(np.float64)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0 or (cull and area > 0):
            continue
        for i in range(height):
            for j in range(width):
                x, y = j + 0.5, i + 0.5
                a = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                b = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                c = 1 - a - b
                if min(a, b, c) < 0:
                    continue
                z = 1 / (a / z0 + b / z1 + c / z2) if perspective else a * z0 + b * z1 + c * z2
                if z < depth[i, j]:
                    index[i, j], depth[i, j] = number, z
    return index, depth


def soup(seed: int, num: int = 40, height: int = 25, width: int = 33, far: float = 0.0):
    """Random triangles, some of them partly outside the picture."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-5, 5, (3 * num, 3)) + np.repeat(
        rng.uniform([0, 0, far], [width, height, far + 9], (num, 3)), 3, axis=0
    )
    return vertices.astype(np.float32), np.arange(3 * num).reshape(num, 3), height, width


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pixels_equal_a_brute_force_rasteriser(seed, cull, perspective):
    vertices, faces, height, width = soup(seed, far=8.0 if perspective else -4.0)
    index, depth = brute_force(vertices, faces, height, width, cull, perspective)
    seen = rasterize(
        torch.from_numpy(vertices)[None], torch.from_numpy(faces), height, width, cull, perspective
    )
    assert np.array_equal(seen.face_index[0].numpy(), index)
    covered = index >= 0
    assert 0.08 < covered.mean() < 0.9, covered.mean()
    error = np.abs(seen.depth[0].numpy() - depth)[covered].max()
    assert error < 1e-4, error
    assert np.isinf(seen.depth[0].numpy()[~covered]).all()


def test_barycentric_weights_find_the_pixel_again():
    vertices, faces, height, width = soup(7)
    seen = rasterize(torch.from_numpy(vertices)[None], torch.from_numpy(faces), height, width)
    places = interpolate(seen, torch.from_numpy(faces), torch.from_numpy(vertices)[None])[0]
    covered = seen.face_index[0] >= 0
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    error = (places[..., :2] - torch.stack([j, i], -1) - 0.5)[covered].abs().max().item()
    assert error < 1e-4, error
    assert (places[~covered] == 0).all()


def test_neighbours_leave_no_crack_and_do_not_overlap():
    """A grid whose corners lie exactly on pixel centres covers each pixel once."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    vertices = torch.stack([columns + 0.5, rows + 0.5, 0 * rows], dim=-1).reshape(1, -1, 3)
    corner = (torch.arange(5)[:, None] * 8 + torch.arange(7)).flatten()
    faces = torch.cat(
        [
            torch.stack([corner, corner + 8, corner + 1], dim=1),
            torch.stack([corner + 1, corner + 8, corner + 9], dim=1),
        ]
    )
    owners = torch.zeros(6, 8, dtype=torch.long)
    for face in faces:
        owners += rasterize(vertices, face[None], 6, 8).face_index[0] >= 0
    assert (owners[:5, :7] == 1).all(), owners
    assert (owners[5] == 0).all() and (owners[:, 7] == 0).all(), owners


def test_a_batch_is_its_items_one_by_one():
    people = [torch.from_numpy(soup(seed)[0]) for seed in range(3)]
    faces = torch.from_numpy(soup(0)[1])
    both = rasterize(torch.stack(people), faces, 25, 33)
    for number, vertices in enumerate(people):
        alone = rasterize(vertices[None], faces, 25, 33)
        for field in ("face_index", "barycentric", "depth"):
            assert torch.equal(getattr(both, field)[number], getattr(alone, field)[0]), field


@pytest.mark.parametrize("chunk", [1, 50, 2**18])
def test_a_face_with_holes_shows_what_is_behind_them(chunk, monkeypatch):
    """As if each face had been drawn alone, and its holes cut out; in pieces of any size."""
    monkeypatch.setitem(rasterizer._CHUNK, "cpu", chunk)
    vertices, faces, *_ = soup(3)
    points, corners = torch.from_numpy(vertices).float(), torch.from_numpy(faces).long()
    shape, item = (1, 25, 33), torch.zeros(len(faces), dtype=torch.long)
    tested = torch.arange(len(faces)) % 3 > 0
    seen = rasterize_packed(
        points,
        corners,
        item,
        shape,
        two_sided=torch.ones_like(tested),
        tested=tested,
        accept=lambda face, weights: (weights[:, 0] > 0.3) & (face != 4),
    )
    index, depth = torch.full(shape, -1), torch.full(shape, torch.inf)
    for number in range(len(faces)):
        face = slice(number, number + 1)
        alone = rasterize_packed(points, corners[face], item[face], shape, torch.ones(1).bool())
        solid = (alone.barycentric[..., 0] > 0.3) & (number != 4) | ~tested[number]
        nearer = (alone.face_index == 0) & solid & (alone.depth < depth)
        index[nearer], depth[nearer] = number, alone.depth[nearer]
    assert torch.equal(seen.face_index, index) and torch.equal(seen.depth, depth)
    assert seen.covered.tolist() == (index.flatten() >= 0).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
def test_parts_of_a_list_of_groups(limit):
    """Each group is in one part, and no part larger than the limit and one group."""
    counts = torch.from_numpy(np.random.default_rng(0).integers(0, 9, 60))
    counts[7] = 100
    parts = list(rasterizer._parts(counts, limit))
    assert [n for part, _ in parts for n in range(*part.indices(60))] == list(range(60))
    for part, total in parts:
        assert total == counts[part].sum()
        assert total <= limit + counts[part].max()
    assert list(rasterizer._parts(counts[:0], limit)) == []


def test_what_cannot_be_drawn_is_left_out():
    good = torch.tensor([[2.0, 2, 1], [2, 8, 1], [8, 2, 1]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    for bad in (torch.nan, torch.inf, 1e30):
        broken = good.clone()
        broken[0, 0] = bad
        seen = rasterize(torch.cat([good, broken])[None], faces, 10, 10)
        alone = rasterize(good[None], faces[:1], 10, 10)
        if bad != 1e30:
            assert torch.equal(seen.face_index, alone.face_index), bad
        assert set(seen.face_index.unique().tolist()) <= {-1, 0, 1}
    behind = good - torch.tensor([0.0, 0, 3])
    assert (rasterize(behind[None], faces[:1], 10, 10, perspective=True).face_index == -1).all()
    assert rasterize(good[None], faces[:1], 0, 0).face_index.shape == (1, 0, 0)


# --- pytorch3d: no wheel for current Python, so a stand-in by its documented contract


class _Meshes:
    def __init__(self, verts, faces):
        self.verts, self.faces = verts, faces


def _rasterize_meshes(meshes, image_size, **options):
    """pytorch3d's documented answer: x left, y up, shorter side [-1, 1], packed face numbers."""
    assert options["blur_radius"] == 0 and options["faces_per_pixel"] == 1
    height, width = image_size
    half, start, answers = min(image_size) / 2, 0, []
    for verts, faces in zip(meshes.verts, meshes.faces, strict=True):
        x, y, z = verts.unbind(-1)
        pixels = torch.stack([width / 2 - x * half, height / 2 - y * half, z], dim=-1)
        drawable = torch.where(z[:, None] < 0, torch.nan, pixels)
        seen = rasterize(drawable[None], faces, height, width, cull_backfaces=False)
        index = torch.where(seen.face_index >= 0, seen.face_index + start, -1)
        empty = seen.face_index < 0
        depth = torch.where(empty, -1.0, seen.depth)
        barycentric = torch.where(empty[..., None], -1.0, seen.barycentric)
        answers.append((index[..., None], depth[..., None], barycentric[..., None, :], depth))
        start += len(faces)
    return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))


@pytest.fixture
def pytorch3d(monkeypatch):
    mesh, structures = types.ModuleType("mesh"), types.ModuleType("structures")
    mesh.rasterize_meshes, structures.Meshes = _rasterize_meshes, _Meshes
    parents = {name: types.ModuleType(name) for name in ("pytorch3d", "pytorch3d.renderer")}
    modules = {**parents, "pytorch3d.renderer.mesh": mesh, "pytorch3d.structures": structures}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    parents["pytorch3d"].renderer = parents["pytorch3d.renderer"]
    parents["pytorch3d.renderer"].mesh = mesh


@pytest.mark.parametrize("size", [(25, 33), (40, 20)])
def test_pytorch3d_gives_the_same_fragments(size, pytorch3d):
    people = torch.stack([torch.from_numpy(soup(seed)[0]) for seed in range(2)])
    faces = torch.from_numpy(soup(0)[1])
    assert pytorch3d_rasterizer.available()
    ours, theirs = (f(people, faces, *size) for f in (rasterize, pytorch3d_rasterizer.rasterize))
    assert torch.equal(ours.face_index, theirs.face_index)
    assert torch.allclose(ours.barycentric, theirs.barycentric, atol=1e-4)
    assert torch.allclose(ours.depth, theirs.depth, atol=1e-4)
    nothing = pytorch3d_rasterizer.rasterize(people - 1000, faces, *size)
    assert (nothing.face_index == -1).all() and nothing.depth.isinf().all()


def test_a_closed_body_shows_no_inside_through_cracks():
    """Wherever the front has no crack, culling the backs changes nothing."""
    layer = SMPL(open_body())
    posed = layer(torch.from_numpy(layer.body.mean_pose.reshape(1, 72)), torch.zeros(1, 10))
    vertices = posed.vertices * 200 + torch.tensor([150.0, 200.0, 0.0])
    culled, whole = (
        rasterize(vertices, layer.faces, 400, 300, cull_backfaces=cull).face_index[0]
        for cull in (True, False)
    )
    assert (culled >= 0).sum() > 10_000
    different = (culled != whole).float().mean().item()
    assert different == 0, f"{100 * different:.3f} % of the pixels see an inside"
