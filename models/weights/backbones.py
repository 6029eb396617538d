"""Weights that a backbone starts from: of pose estimation, or of ImageNet."""

import re
from pathlib import Path

from torch import nn

from smpler.models.backbones.hrnet import HRNet
from smpler.models.weights.files import load_strictly, read_tensors, weights_of
from smpler.utils.paths import display


def load_backbone(backbone: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Load the weights that a backbone starts from.

    Returns:
        The names of the tensors that the file cannot hold, which keep their initialisation.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another network's; the message says what does not fit.
    """
    if isinstance(backbone, HRNet):
        return load_hrnet(backbone, path)
    source = display(Path(path))
    load_strictly(backbone, weights_of(read_tensors(Path(path)), source), source)
    return ()


def load_hrnet(backbone: HRNet, path: str | Path) -> tuple[str, ...]:
    """Load HRNet's published pose weights (Sun et al., CVPR 2019) into the backbone.

    The pose network's last module fuses towards its finest map only: the fusions towards the other
    three are not in the file and keep their initialisation. Its `final_layer` is not used.

    Returns:
        The names of the tensors that the file cannot hold.

    Raises:
        ValueError: anything else is missing or left over, or belongs to another width.
    """
    source = display(Path(path))
    state = weights_of(read_tensors(Path(path)), source)
    state = {name: x for name, x in state.items() if not name.startswith("final_layer.")}
    absent = tuple(
        name for name in backbone.state_dict() if re.match(r"stage4\.2\.fuse_layers\.[123]\.", name)
    )
    width = state.get("stage2.0.branches.0.0.conv1.weight")
    if width is not None and width.ndim and len(width) != backbone.channels[0]:
        raise ValueError(
            f"{source} holds HRNet-W{len(width)}, but the backbone is HRNet-W"
            f"{backbone.channels[0]}; --hrnet_type must fit the file."
        )
    load_strictly(backbone, state, source, may_be_absent=absent)
    return absent
