import numpy as np
import pytest
import torch

from scripts.build.imagenet import convert, golden_images, load_in_order, seeded_state
from smpler.models.backbones.efficientnet import SCALES, EfficientNetLite
from smpler.models.weights.backbones import load_backbone
from tests.support import standin


def test_maps_are_timms_on_seeded_weights():
    network = EfficientNetLite("lite0").eval()
    load_in_order(network, seeded_state(network))
    with torch.no_grad():
        maps = network(golden_images())
    assert [x.shape[-1] for x in maps] == [56, 28, 14, 7]
    assert tuple(x.shape[1] for x in maps) == network.channels == (24, 40, 112, 320)
    golden = np.load(standin.GOLDEN / "efficientnet_lite0.npz")
    for x, expected in zip(maps, golden.values(), strict=True):
        error = np.abs(x[:, ::4, ::4, ::4].numpy() - expected).max() / np.abs(expected).max()
        assert error < 1e-4, error


@pytest.mark.parametrize(
    ("variant", "count", "channels"),
    [  # timm's `features_only` models have as many
        ("lite0", 2_958_848, (24, 40, 112, 320)),
        ("lite1", 3_723_520, (24, 40, 112, 320)),
        ("lite2", 4_357_952, (24, 48, 120, 352)),
    ],
)
def test_parameter_counts_are_timms(variant, count, channels):
    with torch.device("meta"):
        network = EfficientNetLite(variant)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.channels == channels
    assert variant in SCALES


def test_a_file_of_imagenet_weights_loads_without_its_classifier(tmp_path):
    network = EfficientNetLite("lite0")
    state = seeded_state(network)
    published = {f"_blocks.{i}": value for i, value in enumerate(state.values())}
    published |= {"_conv_head.weight": torch.zeros(1280, 320, 1, 1), "_fc.bias": torch.zeros(1000)}
    torch.save(convert(published, "lite0").state_dict(), tmp_path / "lite0.pt")
    assert load_backbone(network, tmp_path / "lite0.pt") == ()
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_of_another_variant_are_refused(tmp_path):
    torch.save(EfficientNetLite("lite2").state_dict(), tmp_path / "lite2.pt")
    with pytest.raises(ValueError, match="lite2.pt does not fit the model"):
        load_backbone(EfficientNetLite("lite0"), tmp_path / "lite2.pt")
