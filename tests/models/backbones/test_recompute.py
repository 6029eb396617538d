import copy
import json
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks import training
from benchmarks.training import kept_bytes
from smpler.models.backbones.efficientnet import EfficientNetLite
from smpler.models.backbones.hrnet import ExchangeModule, HRNet
from smpler.models.backbones.recompute import normalise, recomputing, saves_memory

BACKBONES = {"hrnet": partial(HRNet, 4), "efficientnet": EfficientNetLite}


@pytest.fixture(params=BACKBONES)
def backbones(request) -> tuple[nn.Module, nn.Module]:
    """Twins in training mode, float64; the second recomputes."""
    torch.manual_seed(0)
    plain = BACKBONES[request.param]().double().train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):  # nothing is hidden behind zeros and ones
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    saving = copy.deepcopy(plain)
    saving.recompute = True
    return plain, saving


def images(dtype=torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


def loss(maps: list[torch.Tensor]) -> torch.Tensor:
    return sum((x.float() if x.dtype == torch.bfloat16 else x).square().mean() for x in maps)


def assert_same(plain: nn.Module, saving: nn.Module) -> None:
    """Gradients to the last bit, and everything else that a step leaves behind."""
    for (name, expected), (_, found) in zip(
        plain.named_parameters(), saving.named_parameters(), strict=True
    ):
        assert expected.grad.abs().max() > 0, name
        error = (expected.grad - found.grad).abs().max().item()
        assert error == 0, f"gradient of {name}: {error:.2g}"
    for (name, expected), (_, found) in zip(
        plain.named_buffers(), saving.named_buffers(), strict=True
    ):
        assert torch.equal(expected, found), name


def test_gradients_and_running_statistics_are_those_of_the_plain_backbone(backbones):
    for backbone in backbones:
        for _ in range(2):  # gradients add up, statistics move twice
            loss(backbone(images())).backward()
    assert_same(*backbones)


def test_so_they_are_in_bfloat16(backbones):
    for backbone in backbones:
        backbone.float()
        with torch.autocast("cpu", torch.bfloat16):
            maps = backbone(images(torch.float32))
        loss(maps).backward()
    assert_same(*backbones)


def test_so_they_are_in_channels_last_with_frozen_statistics(backbones):
    for backbone in backbones:
        backbone.to(memory_format=torch.channels_last)
        for number, module in enumerate(backbone.modules()):
            if isinstance(module, nn.BatchNorm2d) and number % 3:
                module.eval()
        loss(backbone(images().contiguous(memory_format=torch.channels_last))).backward()
    assert_same(*backbones)


def test_a_graph_can_be_walked_twice(backbones):
    for backbone in backbones:
        total = loss(backbone(images()))
        total.backward(retain_graph=True)
        total.backward()
    assert_same(*backbones)


def test_state_dicts_are_the_same(backbones):
    plain, saving = (backbone.state_dict() for backbone in backbones)
    assert plain.keys() == saving.keys()


def test_branches_keep_less_than_three_fifths():
    module, maps = ExchangeModule((8, 16)).train(), [torch.randn(1, 8, 16, 16)]
    maps.append(torch.randn(1, 16, 8, 8))
    plain, _ = kept_bytes(lambda: loss(module(maps)))

    def recomputed():
        with recomputing():
            return loss(module(maps))

    saving, _ = kept_bytes(recomputed)
    assert 0 < saving < 0.6 * plain, f"{saving / 2**10:.0f} of {plain / 2**10:.0f} KiB"


@pytest.mark.slow
def test_the_whole_model_keeps_less_than_three_fifths_of_the_published_formulation(tmp_path):
    path = tmp_path / "a.json"
    assert training.main(["--batch", "1", "--rounds", "1", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["recompute_memory_ratio"] < 0.6, result
    assert result["throughput_ratio"] == result["baseline_ms"] / result["ours_ms"] > 0


def test_nothing_is_recomputed_in_eval_mode_or_while_compiling(backbones, monkeypatch):
    _, backbone = backbones
    assert saves_memory(backbone)
    with torch.no_grad():
        assert not saves_memory(backbone)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not saves_memory(backbone)
    monkeypatch.undo()
    assert not saves_memory(backbone.eval())


class OtherNorm(nn.BatchNorm2d):
    """Another kind of normalisation, as SyncBatchNorm is one."""

    def forward(self, x):
        return super().forward(x) * 2


def test_other_normalisations_are_kept_not_imitated():
    norm, conv = OtherNorm(3).double(), nn.Conv2d(3, 3, 1).double()
    x = images().requires_grad_()
    gradients = []
    for _ in range(2):
        total = conv(normalise(norm, x, activation=torch.relu)).square().sum()
        gradients.append(torch.autograd.grad(total, x)[0])
    with recomputing():
        total = conv(normalise(norm, x, activation=torch.relu)).square().sum()
    gradients.append(torch.autograd.grad(total, x)[0])
    assert torch.equal(gradients[0], gradients[2])


def test_memory_that_another_tensor_took_over_is_not_mistaken_for_the_first():
    norm, x = nn.BatchNorm2d(3).double(), images().requires_grad_()
    with recomputing():
        for _ in range(20):  # each result dies, and its memory is given to the next tensor
            normalise(norm, x)
            y = x * 3
            total = (y * y).sum()
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.equal(gradient, 18 * x.detach())
