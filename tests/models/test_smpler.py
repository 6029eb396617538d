import numpy as np
import pytest
import torch

from smpler.models.smpler import PRESETS, SMPLerConfig
from smpler.models.weights.checkpoint import load_model
from tests.support import standin

COUNTS = {
    "smpler": 37_355_950,
    "smpler-l": 73_615_150,
    "smpler-lite": 11_089_134,
    "smpler-blaze": 11_635_470,
    "smpler-backbone": 30_939_997,
    "smpler-l-backbone": 67_090_653,
    "smpler-lite-backbone": 4_658_845,
    "smpler-blaze-backbone": 6_183_485,
}
GOLDEN_FILES = {
    "backbone_w32_h36m": "smpler-backbone",
    "backbone_w48_h36m": "smpler-l-backbone",
    "smpler_w32_h36m": "smpler",
    "smpler_w32_3dpw": "smpler",
    "smpler_w48_h36m": "smpler-l",
}


def golden_errors(model, name: str, dtype: torch.dtype) -> dict[str, float]:
    """Largest difference from every stored array of every stage."""
    golden = np.load(standin.GOLDEN / f"{name}.npz")
    model = model.to(dtype)
    images = standin.images().to(dtype) * model.std + model.mean
    with torch.no_grad():
        estimates = model(images, all_stages=True)
    errors = {}
    for stage, e in enumerate(estimates):
        pelvis = e.pelvis[:, None]
        ours = {
            "theta": e.rotmat,
            "beta": e.betas,
            "cam": e.cam,
            "smpl_joints": e.joints,
            "smpl_joints2d": e.joints_2d,
            "joints2d": e.keypoints_2d,
            "joints_minus_pelvis": e.keypoints_3d - pelvis,
            "vertices_minus_pelvis[::100]": (e.vertices - pelvis)[:, ::100],
        }
        for key, value in ours.items():
            key = f"stage{stage}.{key}"
            errors[key] = float(np.abs(value.numpy() - golden[key]).max())
    assert errors.keys() == set(golden.files), set(golden.files) ^ errors.keys()
    return errors


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_numbers_are_the_published_models(name, standin_arrays):
    kind, hrnet, data_mode = name.split("_")
    state = standin.published_state_dict(kind, hrnet)
    regressor = standin.keypoint_regressor(data_mode)
    model = load_model(GOLDEN_FILES[name], state, standin_arrays, regressor)
    single = golden_errors(model, name, torch.float32)
    assert max(single.values()) < 5e-4, single
    double = golden_errors(model, name, torch.float64)
    assert max(double.values()) < 1e-6, double
    print(f"{name}: float64 {max(double.values()):.1e}, float32 {max(single.values()):.1e}")


def test_official_style_checkpoint_brings_its_own_body(standin_arrays, tmp_path):
    regressor = standin.keypoint_regressor("h36m")
    state = standin.published_state_dict("smpler", "w32")
    state |= standin.published_body(standin_arrays, regressor)
    assert state.keys() == standin.published_keys("smpler", "w32").keys()
    training = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": training, "epoch": 3, "global_iter": 7}, tmp_path / "official.pt")
    model = load_model("smpler", tmp_path / "official.pt")
    assert model.smpl.body.name == "checkpoint"
    errors = golden_errors(model, "smpler_w32_h36m", torch.float64)
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts_are_exact(preset, tiny_body):
    model = load_model(preset, "init", tiny_body)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[preset]


@pytest.fixture(scope="module")
def small_model(standin_arrays):
    state = standin.published_state_dict("smpler", "w32")
    return load_model("smpler", state, standin_arrays, standin.keypoint_regressor("h36m"))


def test_early_stages_hold_the_skeleton_alone_unless_asked(small_model):
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        short, full = small_model(images), small_model(images, all_stages=True)
    assert [e.vertices is None for e in short] == [True, True, True, False]
    assert [e.vertices is None for e in full] == [False] * 4
    assert torch.equal(short[-1].vertices, full[-1].vertices)
    assert torch.equal(short[1].joints_2d, full[1].joints_2d)


def test_without_vertices_everything_else_is_the_same(small_model):
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full, without = small_model(images)[-1], small_model(images, with_vertices=False)[-1]
    assert without.vertices is None
    for field in ("keypoints_3d", "keypoints_2d", "joints", "joints_2d", "pelvis", "rotmat"):
        error = (getattr(full, field) - getattr(without, field)).abs().max().item()
        assert error < 2e-6, (field, error)


def test_model_is_invariant_to_its_batch(small_model):
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = small_model(images)[-1].vertices
        alone = torch.cat([small_model(image[None])[-1].vertices for image in images])
    error = (both - alone).abs().max().item()
    assert error < 1e-4, error


def test_rotations_stay_rotations_through_the_blocks(small_model):
    with torch.no_grad():
        rotmat = small_model(torch.rand(1, 3, 224, 224))[-1].rotmat
    error = (rotmat.mT @ rotmat - torch.eye(3)).abs().max().item()
    assert error < 1e-5, error


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"backbone": "hrnet-w18"}, "w18.*w32.*w48.*lite0.*blazepose-full"),
        ({"num_blocks": -1}, "-1"),
        ({"dim": 130}, "130.*4"),
    ],
)
def test_impossible_configurations_are_named(change, names):
    with pytest.raises(ValueError, match=names):
        SMPLerConfig(**change)
