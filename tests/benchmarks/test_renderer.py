import json

import numpy as np
import pytest
import torch

from benchmarks import renderer


@pytest.fixture
def balls(monkeypatch):
    """Two small balls of 80 triangles in place of bodies, and a small photo."""
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.8)
    points = np.stack([ball.vertices * size for size in (1.0, 0.7)]).astype(np.float32)
    # the camera's y points down: mirrored, corners must turn the other way
    faces = np.ascontiguousarray(ball.faces)
    points[..., 1:] *= -1
    monkeypatch.setattr(renderer, "bodies", lambda count: (points[:count], faces))
    monkeypatch.setattr(renderer, "PHOTO", (60, 40))
    return points, faces


def test_both_draw_the_same_and_the_numbers_are_written(balls, tmp_path):
    file = tmp_path / "numbers.json"
    renderer.main(["--batch", "2", "--rounds", "1", "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["throughput_ratio"] == result["baseline_ms"] / result["ours_ms"] > 0
    assert result["overlay_ours_ms"] > 0 and result["triangles"] == 80


def test_another_picture_is_noticed(balls):
    points, faces = balls
    crop = renderer.CropWindow(0, 0, 224, 224)
    corners = torch.from_numpy(renderer.place(points[:1], crop))
    triangles = torch.from_numpy(faces)
    plain = renderer.plain_rasterize(corners, triangles, 224, 224)
    moved = renderer.rasterize(corners + torch.tensor([3.0, 0, 0]), triangles, 224, 224)
    with pytest.raises(AssertionError):
        renderer.check_equal(plain, moved)
