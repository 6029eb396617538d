import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from smpler.models.attention import MultiHeadAttention, PreNormLayer, draw_kept
from smpler.models.transformer import JointAwareAttention, TransformerBlock, sample_joints
from smpler.utils.geometry import rot6d_to_rotmat


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_attention_matches_plain_softmax_of_scores():
    attention = MultiHeadAttention(dim=8, num_heads=2, dropout=0.0).double()
    queries, context, bias = random(1, 3, 8), random(1, 5, 8, seed=1), random(1, 2, 1, 5, seed=2)
    answer = attention(queries, context, bias)
    q, k, v = attention.query(queries), attention.key(context), attention.value(context)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[0, :, part] @ k[0, :, part].T / 4**0.5 + bias[0, head]
        expected = scores.softmax(dim=-1) @ v[0, :, part]
        error = (answer[0, :, part] - expected).abs().max().item()
        assert error < 1e-12, error


def test_dropout_takes_probabilities_away_and_their_gradients_with_them(monkeypatch):
    attention = MultiHeadAttention(dim=8, num_heads=2, dropout=0.25).double().train()
    queries, context, bias = random(1, 3, 8), random(1, 5, 8, seed=1), random(1, 2, 1, 5, seed=2)
    kept = torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(3)) < 0.75
    monkeypatch.setattr("smpler.models.attention.draw_kept", lambda *_: kept)
    attention(queries, context, bias).square().sum().backward()
    found = [parameter.grad for parameter in attention.parameters()]
    attention.zero_grad()
    q, k, v = attention.query(queries), attention.key(context), attention.value(context)
    total = 0.0
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[0, :, part] @ k[0, :, part].T / 4**0.5 + bias[0, head]
        left = scores.softmax(dim=-1) * kept[0, 3 * head : 3 * head + 3] / 0.75
        total = total + (left @ v[0, :, part]).square().sum()
    total.backward()
    for gradient, parameter in zip(found, attention.parameters(), strict=True):
        if gradient is not None:
            assert (gradient - parameter.grad).abs().max().item() < 1e-12
    assert sum(gradient is not None for gradient in found) == 5  # all but the key's bias


def test_dropout_leaves_the_share_that_it_should():
    query, context = torch.zeros(4, 2, 26, 8), torch.zeros(4, 500, 8)
    kept = draw_kept(query, context, dropout=0.1)
    assert kept.shape == (4, 52, 500) and kept.dtype == torch.bool
    assert abs(kept.float().mean().item() - 0.9) < 0.005  # 5 deviations


def test_context_is_taken_as_it_comes_but_queries_are_normalised():
    layer = PreNormLayer(dim=8, num_heads=2, mlp_dim=16, dropout=0.1).double().eval()
    queries, context = random(1, 3, 8), random(1, 5, 8, seed=1)
    attended = layer.attention(layer.norm(queries), context)
    middle = queries + layer.out(attended)
    expected = middle + layer.mlp(middle)
    assert torch.equal(layer(queries, context), expected)


def test_samples_match_a_plain_loop_also_outside_the_image():
    features = random(2, 14, 14, 3)
    joints_2d = random(2, 24, 2, seed=1) * 0.9  # some lie outside [-1, 1]
    at_joint, windows, offsets = sample_joints(features, joints_2d)
    assert (joints_2d.abs() > 1).any() and windows.shape == (2, 24, 64, 3)
    for b in range(2):
        for j in range(24):
            x, y = ((joints_2d[b, j] + 1) / 2 * 13).tolist()
            grid = np.array([[y], [x]])
            for c in range(3):
                plane = np.pad(features[b, :, :, c].numpy(), 20)  # zeros outside
                expected = map_coordinates(plane, grid + 20, order=1)[0]
                assert abs(at_joint[b, j, c].item() - expected) < 1e-9, (x, y)
            expected = set()
            for dx in range(-3, 5):
                for dy in range(-3, 5):
                    px = min(max(int(np.floor(x)) + dx, 0), 13)
                    py = min(max(int(np.floor(y)) + dy, 0), 13)
                    value = features[b, py, px].tolist()
                    expected.add((round(px - x, 9), round(py - y, 9), *value))
            found = torch.cat([offsets[b, j], windows[b, j]], dim=1).tolist()
            assert {(round(u, 9), round(v, 9), *rest) for u, v, *rest in found} == expected, (x, y)


def test_relative_position_bias_is_read_between_the_entries_of_the_table():
    attention = JointAwareAttention(dim=8, num_heads=2, mlp_dim=16, dropout=0.0).double()
    attention.bias_table.data = random(1, 2, 9, 9)
    offsets = torch.tensor([[[0.0, 0.0], [-3.4, 4.0], [2.25, -1.5], [9.0, 0.0]]]).double()
    bias = attention._bias(offsets)  # (1, 2, 1, 4)
    for head in range(2):
        table = np.pad(attention.bias_table[0, head].detach().numpy(), 10)
        for n, (x, y) in enumerate(offsets[0].tolist()):
            expected = map_coordinates(table, [[y + 14], [x + 14]], order=1)[0]
            found = bias[0, head, 0, n].item()
            assert abs(found - expected) < 1e-12, (head, x, y, found, expected)


@pytest.fixture
def block() -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(
        (8, 16, 32, 64), side=56, dim=32, num_units=2, num_heads=4, mlp_dim=64, dropout=0.1
    ).eval()


def features() -> list[torch.Tensor]:
    return [random(1, 8 * 2**i, 56 // 2**i, 56 // 2**i, seed=i).float() for i in range(4)]


def test_updates_start_near_the_identity(block):
    _, rot6d, betas, cam = block(random(1, 26, 32).float(), features(), torch.zeros(1, 24, 2))
    rotmat = rot6d_to_rotmat(rot6d)
    assert (rotmat - torch.eye(3)).abs().max() < 0.2, rotmat
    assert betas.abs().max() < 0.05 and cam.abs().max() < 0.05, (betas, cam)


def test_gradient_flows_through_the_projected_joints(block):
    joints_2d = (random(1, 24, 2) * 0.3).float().requires_grad_()
    queries, *_ = block(random(1, 26, 32).float(), features(), joints_2d)
    queries.square().sum().backward()
    per_joint = joints_2d.grad.abs().amax(dim=-1)
    assert (per_joint > 0).all(), per_joint


def test_diverged_joints_do_not_read_outside_the_map(block):
    joints_2d = torch.full((1, 24, 2), float("nan"))
    joints_2d[0, 0] = 1e20
    queries, *_ = block(random(1, 26, 32).float(), features(), joints_2d)
    assert queries.shape == (1, 26, 32)
