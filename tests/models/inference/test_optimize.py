import sys

import pytest
import torch

from smpler.models.backbones.efficientnet import EfficientNetLite
from smpler.models.backbones.hrnet import HRNet
from smpler.models.inference import optimize
from smpler.models.inference.optimize import (
    FastSMPLer,
    first_rows,
    fold_batch_norms,
    largest_difference,
    optimize_for_inference,
    whole_float32,
)
from smpler.models.weights.checkpoint import load_model
from tests.models.test_smpler import golden_errors
from tests.support import standin
from tests.support.tiny_model import tiny_model


@pytest.fixture(scope="module")
def model(standin_arrays):
    state = standin.published_state_dict("smpler", "w32")
    return load_model("smpler", state, standin_arrays, standin.keypoint_regressor("h36m"))


@pytest.fixture(scope="module")
def fast(model):
    return optimize_for_inference(model)


def noise(size: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(size, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


def test_optimised_model_gives_the_plain_models_numbers(model, fast):
    error = largest_difference(model, fast, noise(2))
    assert 0 < error < 1e-4, error


def test_optimised_model_gives_the_published_numbers(model, fast):
    fast.std = model.std
    fast.to = lambda dtype: fast  # it is float32, and stays so
    errors = golden_errors(fast, "smpler_w32_h36m", torch.float32)
    assert max(errors.values()) < 5e-4, errors


def test_stages_and_vertices_are_given_as_asked(fast):
    images = noise(1)
    assert [e.vertices is None for e in fast(images)] == [True, True, True, False]
    assert [e.vertices is None for e in fast(images, all_stages=True)] == [False] * 4
    last = fast(images, with_vertices=False)[-1]
    assert last.vertices is None and last.keypoints_3d.shape == (1, 14, 3)


def test_it_has_what_the_demo_reads(model, fast):
    assert fast.smpl.body is not None and fast.config == model.config
    assert fast.mean.device == torch.device("cpu")


def test_the_plain_model_is_left_as_it_was(monkeypatch):
    model = tiny_model(monkeypatch).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    needed = {name: p.requires_grad for name, p in model.named_parameters()}
    optimize_for_inference(model)
    after = model.state_dict()
    assert model.training and before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert needed == {name: p.requires_grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_stage_1_models_are_optimised_as_well(num_blocks, monkeypatch):
    model = tiny_model(monkeypatch, num_blocks)
    error = largest_difference(model, optimize_for_inference(model), noise(3))
    assert 0 < error < 1e-5, error


def test_bfloat16_is_near_and_leaves_the_body_in_float32(monkeypatch):
    model = tiny_model(monkeypatch)
    fast = optimize_for_inference(model, dtype=torch.bfloat16)
    assert {p.dtype for p in fast.model.backbone.parameters()} == {torch.bfloat16}
    images = noise(2)
    with torch.no_grad():
        plain = model(images)[-1]
    found = fast(images)[-1]
    assert found.vertices.dtype == torch.float32
    rotation = (found.rotmat.mT @ found.rotmat - torch.eye(3)).abs().max().item()
    assert rotation < 1e-5, rotation
    error = (plain.rotmat - found.rotmat).abs().mean().item()
    assert 1e-5 < error < 0.03, error


@pytest.mark.first
def test_onnx_runtime_gives_the_plain_models_numbers(monkeypatch):
    pytest.importorskip("onnxruntime")
    model = tiny_model(monkeypatch, num_blocks=1)  # an early stage and the last; each takes seconds
    fast = optimize_for_inference(model, backend="onnxruntime")
    for size in (1, 5):
        error = largest_difference(model, fast, noise(size))
        assert 0 < error < 1e-4, error
    assert fast(noise(1), with_vertices=False)[-1].vertices is None
    # by ONNX Runtime or, for what it does not give, by torch: the same fields are there
    for choices in ({}, {"all_stages": True}, {"with_vertices": False}):
        for ours, plain in zip(fast(noise(2), **choices), model(noise(2), **choices), strict=True):
            for name, value in vars(plain).items():
                found = getattr(ours, name)
                assert (found is None) == (value is None), (choices, name)
                assert value is None or (found - value).abs().max() < 1e-4, (choices, name)


def test_a_wrong_optimisation_is_noticed(monkeypatch):
    model = tiny_model(monkeypatch)

    def broken(backbone):
        backbone.stages[-1][0].bias += 0.1
        return backbone

    monkeypatch.setattr(optimize, "fold_batch_norms", broken)
    with pytest.raises(RuntimeError, match="differs from the plain one by"):
        optimize_for_inference(model)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"cuda_graphs": True}, "CUDA graphs need a GPU.*cpu"),
        ({"dtype": torch.float64}, "float64.*float32.*float16.*bfloat16"),
        ({"backend": "tpu"}, "'tpu'.*torch, onnxruntime"),
        ({"backend": "onnxruntime", "dtype": torch.bfloat16}, "float32.*use backend 'torch'"),
    ],
)
def test_what_this_device_cannot_is_refused(choices, says, monkeypatch):
    with pytest.raises(ValueError, match=says):
        optimize_for_inference(tiny_model(monkeypatch), **choices)


def test_a_model_of_another_precision_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="float64"):
        optimize_for_inference(tiny_model(monkeypatch).double())


def test_without_onnx_runtime_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
        optimize_for_inference(tiny_model(monkeypatch), backend="onnxruntime")


@pytest.mark.parametrize("make", [lambda: HRNet(8), EfficientNetLite])
def test_folded_backbone_has_no_batch_norm_and_the_same_maps(make):
    torch.manual_seed(0)
    backbone = make().double()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    images = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        backbone.train()(images)  # batch statistics are those of the maps
        expected = backbone.eval()(images)
        folded = fold_batch_norms(backbone)
        found = folded(images)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    for plain, fused in zip(expected, found, strict=True):
        error = ((plain - fused).abs().max() / plain.abs().max()).item()
        assert error < 1e-10, error


class OneLaunch:
    """Stands in for a CUDA graph: replaying computes the answer anew, into the same memory."""

    def __init__(self, fast: FastSMPLer, size: int):
        self.given = torch.zeros(size, 3, 224, 224)
        self.fast, self.answer = fast, fast._compute(self.given, False, True)

    def replay(self) -> None:
        for old, new in zip(self.answer, self.fast._compute(self.given, False, True), strict=True):
            for name, value in vars(new).items():
                if value is not None:
                    getattr(old, name).copy_(value)


def test_batches_are_filled_up_to_a_recorded_size(monkeypatch):
    model = tiny_model(monkeypatch)
    fast = optimize_for_inference(model)
    recorded = []

    def record(size, all_stages, with_vertices):
        recorded.append(size)
        launch = OneLaunch(fast, size)
        return launch, launch.given, launch.answer

    monkeypatch.setattr(fast, "_record", record)
    fast.cuda_graphs = True
    first = fast(noise(3))[-1]
    kept = first.vertices.clone()
    fast(noise(8, seed=2))
    assert torch.equal(first.vertices, kept), "a later replay has changed an earlier answer"
    fast(noise(1))
    assert recorded == [8, 1]
    with torch.no_grad():
        expected = model(noise(3))[-1].vertices
    error = (expected - first.vertices).abs().max().item()
    assert first.vertices.shape == expected.shape and error < 1e-4, error


def test_first_rows_are_copies(monkeypatch):
    with torch.no_grad():
        estimate = tiny_model(monkeypatch)(noise(2))[-1]
    row = first_rows(estimate, 1)
    assert row.vertices.shape[0] == 1 and row.vertices.data_ptr() != estimate.vertices.data_ptr()


@pytest.mark.slow
@pytest.mark.first
def test_compiled_model_gives_the_plain_models_numbers(monkeypatch):
    model = tiny_model(monkeypatch)
    # each size of batch takes most of a minute: the check's own of 1, and the 2 that are compared
    monkeypatch.setattr(optimize, "_check", lambda *_: None)
    fast = optimize_for_inference(model, compile=True)
    error = largest_difference(model, fast, noise(2))
    assert 0 < error < 1e-4, error


def test_whole_float32_switches_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(ZeroDivisionError), whole_float32():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [1, 5, 8])
def test_recorded_launches_give_the_plain_models_numbers(size, monkeypatch):
    model = tiny_model(monkeypatch).cuda()
    fast = optimize_for_inference(model)
    with whole_float32():  # the launches are recorded in here
        error = largest_difference(model, fast, noise(size).cuda())
    assert fast._recorded and error < 1e-4, error
