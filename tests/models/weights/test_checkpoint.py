import os
import pickle

import numpy as np
import pytest
import torch

from smpler.models.backbones.hrnet import WIDTHS, HRNet
from smpler.models.body import open_body
from smpler.models.smpler import PRESETS, SMPLer, build_smpler
from smpler.models.weights.backbones import load_hrnet
from smpler.models.weights.checkpoint import (
    describe_weights,
    load_model,
    load_weights,
    read_checkpoint,
    resolve_body,
)
from smpler.models.weights.published import our_name
from tests.support import standin


class Payload:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return os.system, ("echo this must never run > /tmp/smpler-payload",)


@pytest.mark.parametrize(
    ("kind", "preset"), [("smpler", "smpler"), ("backbone", "smpler-backbone")]
)
def test_published_names_and_ours_correspond_one_to_one(kind, preset, tiny_body):
    published = standin.published_keys(kind, "w32")
    network = {name: s for name, (s, _) in published.items() if not name.startswith("smpl_handler")}
    ours = build_smpler(PRESETS[preset], tiny_body).state_dict()
    assert {our_name(name): tuple(shape) for name, shape in network.items()} == {
        name: tuple(value.shape) for name, value in ours.items()
    }
    assert len({our_name(name) for name in network}) == len(network)


@pytest.fixture(scope="module")
def saved() -> SMPLer:
    return load_model("smpler-backbone", "init", body=open_body())


@pytest.mark.parametrize("wrap", ["bare", "training dict", "module."])
def test_our_own_weights_come_back_however_they_are_wrapped(wrap, saved, tiny_body, tmp_path):
    state = saved.state_dict()
    if wrap == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    content = state if wrap == "bare" else {"model": state, "epoch": 0}
    if wrap == "training dict":
        content["config"] = saved.config.to_dict()
    torch.save(content, tmp_path / "ours.pt")
    loaded = load_model(checkpoint=tmp_path / "ours.pt", body=tiny_body)
    assert loaded.config == saved.config
    expected = saved.state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("transformer.1.beta_predictor.bias"), "missing: blocks.1.betas_head.bias"),
        (lambda s: s.update({"transformer.1.extra": torch.zeros(1)}), "transformer.1.extra"),
        (
            lambda s: s.update({"SMPL_predictor.fc2.bias": torch.zeros(7)}),
            r"regressor.fc2.bias \(7,\) instead of \(1024,\)",
        ),
        (lambda s: s.pop("backbone.conv1.weight"), "missing: backbone.conv1.weight"),
    ],
)
def test_a_tensor_too_few_too_many_or_too_large_is_named(damage, message, tiny_body):
    state = standin.published_state_dict("smpler", "w32")
    damage(state)
    with pytest.raises(ValueError, match=message):
        load_model("smpler", state, tiny_body)


def test_another_models_weights_are_refused_by_name(tiny_body):
    state = standin.published_state_dict("backbone", "w48")
    with pytest.raises(ValueError, match="hrnet-w48 and 0 blocks.*hrnet-w32 and 3 blocks"):
        load_model("smpler", state, tiny_body)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, tiny_body):
    torch.save({"model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt is not a readable checkpoint"):
        load_model("smpler", tmp_path / "evil.pt", tiny_body)
    assert not os.path.exists("/tmp/smpler-payload")


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint at all", pickle.dumps([1, 2]), b"PK\x03\x04 broken zip"]
)
def test_files_that_are_no_checkpoints_give_one_sentence(content, tmp_path, tiny_body):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match="file.pt") as caught:
        load_model("smpler", tmp_path / "file.pt", tiny_body)
    assert "\n" not in str(caught.value), caught.value


def test_a_missing_checkpoint_is_named(tiny_body):
    with pytest.raises(FileNotFoundError, match="nowhere.pt is missing"):
        load_model("smpler", "nowhere.pt", tiny_body)


def test_regressor_of_another_body_is_a_clear_error(standin_arrays, tiny_body):
    wrong = standin.keypoint_regressor("h36m")
    with pytest.raises(ValueError, match=r"\(17, 6890\).*20 vertices needs \(17, 20\)"):
        load_model("smpler", "init", tiny_body, wrong)
    with pytest.raises(ValueError, match=r"\(24, 6890\)"):
        load_model("smpler", "init", standin_arrays, standin_arrays["J_regressor"])


def test_a_regressor_can_be_a_file(standin_arrays, tmp_path):
    np.save(tmp_path / "J.npy", standin.keypoint_regressor("3dpw"))
    body = resolve_body(standin_arrays, tmp_path / "J.npy", None)
    error = np.abs(body.h36m_regressor - standin.keypoint_regressor("3dpw")).max()
    assert error < 1e-7, error


def test_a_given_body_takes_the_regressor_inside_the_checkpoint(standin_arrays):
    regressor = standin.keypoint_regressor("3dpw")
    state = standin.published_state_dict("backbone", "w32")
    state |= standin.published_body(standin_arrays, regressor)
    body = resolve_body(standin_arrays, None, read_checkpoint(state))
    assert np.abs(body.h36m_regressor - regressor).max() < 1e-7


def test_only_init_gives_an_untrained_model(tiny_body):
    with pytest.raises(ValueError, match="no open weights of smpler-backbone .trained are"):
        load_model("smpler-backbone", body=tiny_body)
    model = load_model("smpler-backbone", "init", tiny_body)
    assert describe_weights("init") == ("initial parameters", "") and not model.training


def pose_checkpoint(backbone: HRNet) -> dict[str, torch.Tensor]:
    """What HRNet's pose weights hold: no fusions towards the coarser maps of the last module."""
    state = {name: value + 1 for name, value in backbone.state_dict().items()}
    kept = {
        name: value
        for name, value in state.items()
        if not name.startswith(tuple(f"stage4.2.fuse_layers.{target}." for target in (1, 2, 3)))
    }
    return kept | {"final_layer.weight": torch.zeros(16, backbone.channels[0], 1, 1)}


@pytest.mark.parametrize(("hrnet", "missing"), [("w32", 769_984), ("w48", 1_730_208)])
def test_hrnet_pose_weights_load_and_what_they_lack_is_named(hrnet, missing, tmp_path):
    backbone = HRNet(WIDTHS[hrnet])
    torch.save(pose_checkpoint(backbone), tmp_path / "pose.pth")
    absent = load_hrnet(backbone, tmp_path / "pose.pth")
    parameters = dict(backbone.named_parameters())
    assert sum(parameters[name].numel() for name in absent if name in parameters) == missing
    loaded = backbone.state_dict()
    for name, value in torch.load(tmp_path / "pose.pth").items():
        assert name == "final_layer.weight" or torch.equal(loaded[name], value), name


def test_hrnet_weights_of_another_width_or_network_are_refused(tmp_path):
    backbone = HRNet(32)
    torch.save({"stage2.0.branches.0.0.conv1.weight": torch.zeros(48, 48, 3, 3)}, tmp_path / "w48")
    with pytest.raises(ValueError, match="HRNet-W48.*HRNet-W32"):
        load_hrnet(backbone, tmp_path / "w48")
    state = pose_checkpoint(backbone)
    del state["stage3.1.branches.2.3.bn2.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match="missing: stage3.1.branches.2.3.bn2.bias"):
        load_hrnet(backbone, tmp_path / "cut.pth")


def test_weights_of_a_model_fit_only_its_configuration(tiny_body):
    checkpoint = read_checkpoint(standin.published_state_dict("backbone", "w32"))
    with pytest.raises(ValueError, match="0 blocks.*3 blocks"):
        load_weights(build_smpler(PRESETS["smpler"], tiny_body), checkpoint)
