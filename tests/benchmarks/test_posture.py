import pytest
import torch

from benchmarks.posture import IMAGE_UP, angles, bends, leans


def of(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_leans_are_signed_angles_in_depth_and_in_the_picture():
    tan = 0.17632698070846498  # of 10 degrees
    lines = of((0, -1, 0), (0, -2, -2 * tan), (tan, -1, 0), (0, 1, 0), (-1, 0, 0))
    found = leans(lines, IMAGE_UP.expand(5, 3))
    expected = of((0, 0, 0), (-10, 0, 0), (0, 10, 0), (180, 180, 0), (0, -90, 0))[:, :2]
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-6), found
    assert torch.allclose(found[:3], expected[:3], atol=1e-6), found


def test_a_camera_that_looks_down_sees_who_is_upright_upright():
    up = torch.nn.functional.normalize(of((0.2, -0.9, -0.4)), dim=1)
    assert leans(1.5 * up, up).abs().max() < 1e-6


def test_angles_and_bends_hold_where_the_cosine_is_flat():
    tiny = torch.deg2rad(torch.tensor(1e-4, dtype=torch.float64))
    turned = torch.stack([torch.sin(tiny), -torch.cos(tiny), torch.zeros_like(tiny)])[None]
    assert angles(turned, of((0, -3, 0))).item() == pytest.approx(1e-4, abs=1e-9)
    hip, knee, ankle = of((0, -1, 0), (0, -0.5, 0), (0, 0, 0)).unsqueeze(1)
    assert bends(hip, knee, ankle).item() == 0
    assert bends(hip, knee, of((0, -0.5, 0.4))).item() == pytest.approx(90)
    assert bends(hip, knee, hip).item() == pytest.approx(180)
