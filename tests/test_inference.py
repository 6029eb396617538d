import pytest
import torch

from models import fused
from models.efficientnet import EfficientNetLite
from models.hrnet import HRNet
from models.inference import FastSMPLer, largest_difference
from models.pretrained import load_model
from tests import standin


@pytest.fixture(scope="module")
def model(standin_arrays):
    state = standin.published_state_dict("smpler", "w32")
    return load_model("smpler", state, standin_arrays, standin.keypoint_regressor("h36m"))


@pytest.fixture(scope="module")
def fast(model):
    return model.optimize_for_inference()


def test_optimised_model_gives_the_plain_models_numbers(model, fast):
    error = largest_difference(model, fast, batch_sizes=[1, 2])
    assert 0 < error < 1e-4, error


def test_optimised_model_gives_the_published_numbers(model, fast):
    from tests.test_smpler import golden_errors

    fast.std = model.std
    fast.to = lambda dtype: fast  # it is float32, and stays so
    errors = golden_errors(fast, "smpler_w32_h36m", torch.float32)
    assert max(errors.values()) < 5e-4, errors


def test_stages_and_vertices_are_given_as_asked(fast):
    images = torch.rand(1, 3, 224, 224)
    assert [e.vertices is None for e in fast(images)] == [True, True, True, False]
    assert [e.vertices is None for e in fast(images, all_stages=True)] == [False] * 4
    last = fast(images, with_vertices=False)[-1]
    assert last.vertices is None and last.keypoints_3d.shape == (1, 14, 3)


def test_the_plain_model_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.optimize_for_inference()
    assert model.training and all(p.requires_grad for p in model.backbone.parameters())
    model.eval()
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_wrong_optimisation_is_noticed(model, monkeypatch):
    monkeypatch.setattr(FastSMPLer, "smpl", property(lambda self: self.model.smpl))
    original = fused.FusedConv.forward
    monkeypatch.setattr(
        fused.FusedConv, "forward", lambda self, x, shortcut=None: original(self, x, shortcut) + 0.1
    )
    with pytest.raises(RuntimeError, match="differs from the plain one"):
        model.optimize_for_inference()


def test_without_a_gpu_cuda_graphs_are_refused(model):
    with pytest.raises(ValueError, match="need a GPU"):
        model.optimize_for_inference(cuda_graphs=True)


def calibrated(backbone: torch.nn.Module) -> torch.nn.Module:
    """Random weights whose batch statistics are those of the maps, as in a trained network."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        backbone.train()(torch.randn(2, 3, 64, 64))
    return backbone.eval()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("make", [lambda: HRNet(8), EfficientNetLite])
def test_fused_backbone_matches_the_plain_one_packed_or_not(make, packed, monkeypatch):
    torch.manual_seed(0)
    backbone = calibrated(make())
    if not packed:
        monkeypatch.setattr(fused, "can_pack", lambda weight: False)
    optimised = fused.fuse_backbone(backbone, side=64)
    convs = [m for m in optimised.modules() if isinstance(m, fused.FusedConv)]
    assert all(conv.is_packed == packed for conv in convs)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in optimised.modules())
    images = torch.randn(2, 3, 96, 64)  # another size than the weights are laid out for
    with torch.no_grad():
        for expected, found in zip(backbone(images), optimised(images), strict=True):
            error = ((expected - found).abs().max() / expected.abs().max()).item()
            assert error < 1e-4, error


def test_a_packed_backbone_refuses_to_move():
    optimised = fused.fuse_backbone(calibrated(EfficientNetLite()), side=64)
    with pytest.raises(RuntimeError, match="optimise a new one"):
        optimised.double()
