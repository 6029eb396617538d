import io
import tarfile

import numpy as np
import pytest
import torch
from torch import nn

from scripts.build import npm
from scripts.build.rounding import round_network
from smpler.models.weights.files import read_arrays
from smpler.models.weights.quantized import dequantize, quantize

SPEC, OTHER = "package@1", "0" * 64


@torch.no_grad()
def test_outputs_move_less_than_by_plain_rounding(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(64, 64, 1), nn.ReLU6(), nn.Conv2d(64, 48, 1), nn.Conv2d(48, 4, 3)]
    network = nn.Sequential(*layers).eval()
    mixed = torch.randn(64, 64)  # inputs of one pixel depend on each other
    inputs = torch.einsum("dc, bchw -> bdhw", mixed, torch.rand(40, 64, 8, 8))
    expected = network(inputs[20:])
    tensors = round_network(network, lambda: network(inputs[:20]))
    kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    assert kinds["0.weight"] == kinds["2.weight"] == "int8" and kinds["3.weight"] == "float16"
    np.savez(tmp_path / "rounded.npz", **{name: value.numpy() for name, value in tensors.items()})
    exact = {name: value.clone() for name, value in network.state_dict().items()}
    plain = {name: value for name, value in exact.items() if name in ("0.weight", "2.weight")}
    moved = []
    for state in (exact | dequantize(quantize(plain)), read_arrays(tmp_path / "rounded.npz")):
        network.load_state_dict(state)
        moved.append((network(inputs[20:]) - expected).square().mean().sqrt().item())
    assert moved[1] < 0.7 * moved[0], moved


def test_another_archive_gives_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing; give the archive of package@1 by --arch"):
        npm.read_from_package(SPEC, "a.bin", OTHER, tmp_path / "none.tgz")
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as files:
        files.addfile(tarfile.TarInfo("package/a.bin"), io.BytesIO())
    with pytest.raises(ValueError, match="package.tgz holds no b.bin; give the archive"):
        npm.read_from_package(SPEC, "b.bin", OTHER, archive)
    with pytest.raises(ValueError, match=f"a.bin in package.tgz has sha256 .*, not {OTHER}; give"):
        npm.read_from_package(SPEC, "a.bin", OTHER, archive)
