import numpy as np
import pytest
import torch

from scripts.build.blazepose import AS_EXECUTED, READERS, outputs_of, person_crop
from smpler.models.backbones.blazepose import LANDMARK_SCALE, BlazePoseBackbone
from smpler.models.smpler import PRESETS
from smpler.models.weights.backbones import load_backbone
from smpler.models.weights.checkpoint import read_checkpoint, released_weights
from smpler.models.weights.files import load_strictly
from smpler.utils.paths import ROOT
from tests.support import standin

PRESET = "smpler-blaze-backbone"


@pytest.fixture(scope="module")
def released() -> BlazePoseBackbone:
    """The backbone inside the released weights: trained on, at a fifth of the rate, and rounded."""
    state = read_checkpoint(released_weights(PRESET)).state
    names = [name for name in state if name.startswith("backbone.")]
    network = BlazePoseBackbone().eval()
    load_strictly(network, {name.removeprefix("backbone."): state[name] for name in names}, PRESET)
    return network


def test_the_released_encoder_is_still_much_like_the_original(released):
    golden = np.load(standin.GOLDEN / "blazepose_full.npz")["stage16"]
    ours = outputs_of(released, person_crop())["stage16"][::4, ::4, ::4]
    error = np.abs(ours - golden).mean() / np.abs(golden).mean()
    assert error < 0.3, f"{error} of the mean value"
    correlation = np.corrcoef(ours.ravel(), golden.ravel())[0, 1]
    assert correlation > 0.95, correlation


def seeded_backbone() -> BlazePoseBackbone:
    """Random weights that keep the size of what they filter, the same on every machine."""
    rng = np.random.default_rng(0)
    network = BlazePoseBackbone().eval()
    for part in AS_EXECUTED:
        for name, value in getattr(network, part).state_dict().items():
            fan_in = value[0].numel() if name.endswith("weight") else 4
            values = rng.standard_normal(tuple(value.shape)) * np.sqrt(2 / fan_in)
            value.copy_(torch.from_numpy(values.astype(np.float32)))
    return network


def test_seeded_weights_give_what_they_gave_when_the_original_was_compared():
    """Recorded when `scripts.build.blazepose` found this code equal to the original to 7e-6."""
    golden = np.load(standin.GOLDEN / "blazepose_seeded.npz")
    outputs = outputs_of(seeded_backbone(), person_crop())
    for name, expected in golden.items():
        ours = outputs[name].ravel()[:: max(outputs[name].size // 500, 1)]
        error = np.abs(ours - expected).max() / np.abs(expected).max()
        assert error < 1e-4, f"{name}: {error} of the largest value"


@pytest.mark.slow
def test_converted_weights_are_the_original_to_rounding():
    # the original's 12 MB are not shipped: the release holds its encoder, and the rest trained on
    path = ROOT / "pretrained" / "blazepose_full.pt"
    if not path.is_file():
        pytest.skip("python -m scripts.build.blazepose writes pretrained/blazepose_full.pt")
    network = BlazePoseBackbone().eval()
    load_backbone(network, path)
    golden = np.load(standin.GOLDEN / "blazepose_full.npz")
    ours = outputs_of(network, person_crop())
    for name in READERS:
        ours[name] = ours[name][::4, ::4, ::4]
    for name, expected in golden.items():
        error = np.abs(ours[name] - expected).max() / np.abs(expected).max()
        assert error < 1e-4, f"{name}: {error} of the largest value"


def test_maps_halve_and_the_coarsest_tells_the_same_at_every_pixel():
    network = BlazePoseBackbone().eval()
    with torch.no_grad():
        maps = network(torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert [x.shape[-1] for x in maps] == [network.finest_side // 2**i for i in range(3)]
    assert tuple(x.shape[1] for x in maps) == network.channels
    of_the_crop = maps[-1][:, 144:]
    assert torch.equal(of_the_crop, of_the_crop[:, :, :1, :1].expand_as(of_the_crop))
    assert not torch.equal(of_the_crop[0], of_the_crop[1])
    assert len(LANDMARK_SCALE) == 5


def test_the_released_model_is_what_the_demo_takes():
    checkpoint = read_checkpoint(released_weights())
    assert checkpoint.config == PRESETS[PRESET]
