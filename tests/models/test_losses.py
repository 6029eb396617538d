import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from smpler.models.losses import SMPLLoss
from smpler.models.smpl import SMPL, Estimate
from smpler.models.weights.checkpoint import load_model
from smpler.models.weights.published import our_name
from smpler.training.engine import measure
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import KEYPOINTS_FROM_ANNOTATION
from tests.support import standin

TERMS = {
    "loss_vertices": "vertices",
    "loss_2d_joints": "keypoints_2d",
    "loss_3d_joints": "keypoints_3d",
    "loss_theta": "rotmat",
}


def golden() -> dict:
    with gzip.open(standin.GOLDEN / "train.json.gz") as file:
        return json.load(file)


def golden_batch(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The batch of the golden numbers: drawn in this order from one generator, then cast."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def above(limit: float) -> torch.Tensor:
        return (torch.rand(4, 24, 1, generator=generator) > limit).float()

    joints_2d = torch.cat([normal(4, 24, 2) * 0.4, above(0.3)], dim=-1)
    joints_3d = torch.cat([normal(4, 24, 3) * 0.3, above(0.1)], dim=-1)
    images = normal(4, 3, 224, 224)
    torch.rand(4, 3, 224, 224, generator=generator)  # another image, which the loss does not use
    keypoints = list(KEYPOINTS_FROM_ANNOTATION)
    batch = {
        "normalised": images,
        "pose": normal(4, 72) * 0.3,
        "betas": normal(4, 10) * 0.5,
        "keypoints_2d": joints_2d[:, keypoints],
        "keypoints_3d": joints_3d[:, keypoints],
    }
    return {name: value.to(dtype) for name, value in batch.items()} | {
        "has_keypoints_2d": torch.tensor([True, True, True, False]),
        "has_keypoints_3d": torch.tensor([True, True, False, True]),
        "has_smpl": torch.tensor([True, False, True, True]),
    }


def model_without_dropout(kind: str, arrays: dict, dtype: torch.dtype):
    model = load_model(
        "smpler" if kind == "smpler" else "smpler-backbone",
        standin.published_state_dict(kind, "w32"),
        arrays,
        standin.keypoint_regressor("h36m"),
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model.to(dtype)


def loss_terms(model, batch, criterion) -> dict[str, torch.Tensor]:
    estimate = model(batch["normalised"] * model.std + model.mean)[-1]
    return criterion(estimate, batch)


def relative_errors(terms: dict, criterion: SMPLLoss, expected: dict) -> dict[str, float]:
    errors = {
        name: abs(terms[ours].item() / criterion.weights[ours] / expected[name] - 1)
        for name, ours in TERMS.items()
    }
    total = sum(terms.values()).item()
    return errors | {"total": abs(total / expected["loss_combine"] - 1)}


@pytest.mark.first
@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("smpler", 1),
        pytest.param("smpler", 3, marks=pytest.mark.slow),
        pytest.param("backbone", 3, marks=pytest.mark.slow),
    ],
)
def test_adam_steps_are_the_published_ones_in_float64(kind, steps, standin_arrays):
    expected = golden()
    model = model_without_dropout(kind, standin_arrays, torch.float64).train()
    criterion = SMPLLoss(model.smpl)
    batch = golden_batch(torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    for step in range(steps):
        terms = loss_terms(model, batch, criterion)
        errors = relative_errors(terms, criterion, expected[f"{kind}.steps"][step])
        assert max(errors.values()) < 1e-6, (step, errors)
        if 0 < step == steps - 1:
            break  # nobody looks at what follows
        optimizer.zero_grad()
        sum(terms.values()).backward()
        if step == 0:
            check_gradients(model, kind, expected)
        optimizer.step()


def check_gradients(model, kind: str, expected: dict) -> None:
    parameters = dict(model.named_parameters())
    for published, norm in expected[f"{kind}.grad_norms"].items():
        if published.endswith("attention.key.bias"):
            continue  # cancels in the softmax: its gradient is rounding noise
        found = parameters[our_name(published)].grad.norm().item()
        assert abs(found / norm - 1) < 1e-6, (published, found, norm)
    without = {name for name, parameter in parameters.items() if parameter.grad is None}
    key_biases = {name for name in parameters if name.endswith("attention.key.bias")}
    published = {our_name(name) for name in expected[f"{kind}.params_without_grad"]}
    assert without == published | key_biases
    asked = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert asked == parameters.keys() - key_biases  # DDP waits for the gradients of these


@pytest.mark.parametrize("kind", ["backbone", "smpler"])
def test_first_step_is_the_published_one_in_float32(kind, standin_arrays):
    model = model_without_dropout(kind, standin_arrays, torch.float32).train()
    criterion = SMPLLoss(model.smpl)
    terms = loss_terms(model, golden_batch(torch.float32), criterion)
    errors = relative_errors(terms, criterion, golden()[f"{kind}.steps"][0])
    assert max(errors.values()) < 5e-4, errors


@pytest.mark.parametrize("kind", ["backbone", "smpler"])
def test_evaluation_sums_are_the_published_ones(kind, standin_arrays):
    expected = golden()[f"{kind}.eval"]
    model = model_without_dropout(kind, standin_arrays, torch.float64)
    batch = golden_batch(torch.float64)
    with torch.no_grad():
        estimate = model(batch["normalised"] * model.std + model.mean)[-1]
        errors = measure(estimate, model.smpl, batch)
        everyone = measure(estimate, model.smpl, batch | {"has_keypoints_3d": torch.ones(4) > 0})
    found = {
        "mpve_sum": errors["mpve"].nansum().item(),
        "mpjpe_sum": errors["mpjpe"].nansum().item(),
        # the published code sums PA-MPJPE over samples that it does not count
        "pa_mpjpe_sum": everyone["mpjpe-pa"].sum().item(),
    }
    counts = {
        "mpve_count": int(errors["mpve"].isfinite().sum()),
        "count": int(errors["mpjpe"].isfinite().sum()),
    }
    assert counts == {name: expected[name] for name in counts}
    for name, value in found.items():
        assert abs(value / expected[name] - 1) < 1e-6, (name, value, expected[name])


def tiny_estimate(layer, batch: int) -> Estimate:
    rng = np.random.default_rng(0)
    pose = torch.from_numpy(rng.normal(0, 0.3, (batch, 72))).float()
    betas = torch.from_numpy(rng.normal(0, 1, (batch, 10))).float()
    rotmat = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    return layer.estimate(rotmat, betas, torch.tensor([[1.0, 0.0, 0.0]]).expand(batch, -1))


def test_absent_labels_may_be_anything_even_nan(tiny_body):
    layer = SMPL(tiny_body)
    batch = golden_batch(torch.float32)
    clean = SMPLLoss(layer)(tiny_estimate(layer, 4), batch)
    batch["pose"][1] = float("nan")
    batch["keypoints_3d"][2] = float("nan")
    dirty = SMPLLoss(layer)(tiny_estimate(layer, 4), batch)
    assert clean == dirty


def test_terms_without_samples_are_zero(tiny_body):
    layer = SMPL(tiny_body)
    batch = golden_batch(torch.float32)
    batch["has_smpl"] = batch["has_keypoints_3d"] = torch.zeros(4) > 0
    batch["keypoints_2d"][..., 2] = 0
    terms = SMPLLoss(layer)(tiny_estimate(layer, 4), batch)
    assert all(term == 0 for term in terms.values()), terms


def test_without_vertices_only_their_term_is_missing(tiny_body):
    layer = SMPL(tiny_body)
    batch = golden_batch(torch.float32)
    estimate = tiny_estimate(layer, 4)
    whole = SMPLLoss(layer)(estimate, batch)
    terms = SMPLLoss(layer)(replace(estimate, vertices=None), batch)
    assert terms == {name: term for name, term in whole.items() if name != "vertices"}


def test_betas_have_a_loss_when_asked(tiny_body):
    layer = SMPL(tiny_body)
    batch = golden_batch(torch.float32)
    batch["has_smpl"] = torch.tensor([True, True, False, False])
    estimate = tiny_estimate(layer, 4)
    difference = estimate.betas[:2] - batch["betas"][:2]
    terms = SMPLLoss(layer, w_betas=3.0)(estimate, batch)
    assert math.isclose(terms["betas"], 3 * difference.square().mean(), rel_tol=1e-5)
    assert set(terms) - set(SMPLLoss(layer)(estimate, batch)) == {"betas"}


def test_l1_criterion_changes_the_keypoints_only(tiny_body):
    layer = SMPL(tiny_body)
    batch = golden_batch(torch.float32)
    estimate = tiny_estimate(layer, 4)
    mse = SMPLLoss(layer)(estimate, batch)
    l1 = SMPLLoss(layer, joint_criterion="l1")(estimate, batch)
    changed = {name for name in mse if mse[name] != l1[name]}
    assert changed == {"keypoints_3d", "keypoints_2d"}
