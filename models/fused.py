"""Backbones for inference: batch norm folded in, activation and shortcut inside the convolution.

On the CPU, oneDNN's fused convolutions are called on weights that are laid out once; elsewhere
plain convolutions in channels-last memory do the same. Values change by rounding only.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.efficientnet import ConvNorm
from models.hrnet import BasicBlock, Bottleneck, ExchangeModule, HRNet


def fuse_backbone(backbone: nn.Module, side: int) -> nn.Module:
    """Return a fused copy of an HRNet or EfficientNet-Lite in eval mode.

    Args:
        side: of the images, pixels; weights are laid out for it, others work as well.
    """
    fused = copy.deepcopy(backbone).eval().requires_grad_(False)
    _note_input_sizes(fused, side)
    _replace_children(fused)
    if isinstance(fused, HRNet):
        for number in (1, 2):
            conv, norm = getattr(fused, f"conv{number}"), getattr(fused, f"bn{number}")
            setattr(fused, f"conv{number}", FusedConv(conv, norm, "relu"))
            setattr(fused, f"bn{number}", nn.Identity())
        fused.relu = nn.Identity()
    return fused


class FusedConv(nn.Module):
    """activation(conv(x) + bias + shortcut), batch norm being in the weights.

    Args:
        activation: `none`, `relu` or `relu6`.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, activation: str = "none"):
        super().__init__()
        folded = fuse_conv_bn_eval(conv.eval(), norm.eval())
        self.activation = activation
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        weight = folded.weight.detach().contiguous(memory_format=torch.channels_last)
        self.is_packed = can_pack(weight)
        if self.is_packed:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            weight = pack(weight, *self.geometry, conv.input_size)
        self.weight = weight  # not a buffer: a packed tensor is opaque to state dicts and `to`
        self.register_buffer("bias", folded.bias.detach(), persistent=False)

    def forward(
        self, x: Float[Tensor, "b _ _ _"], shortcut: Float[Tensor, "b _ _ _"] | None = None
    ) -> Float[Tensor, "b _ _ _"]:
        """Convolve; a shortcut is added before the activation."""
        padding, stride, dilation, groups = self.geometry
        if not self.is_packed:
            y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            y = y if shortcut is None else y.add_(shortcut)
            return {"none": lambda y: y, "relu": torch.relu_, "relu6": F.relu6}[self.activation](y)
        fused = torch.ops.mkldnn._convolution_pointwise
        given = (self.weight, self.bias, padding, stride, dilation, groups)
        if shortcut is None:
            name, limits = {"relu6": ("hardtanh", [0.0, 6.0])}.get(
                self.activation, (self.activation, [])
            )
            return fused(x, *given, name, limits, "")
        after = None if self.activation == "none" else self.activation
        return fused.binary(x, shortcut, *given, "add", 1.0, after, [], None)

    def _apply(self, fn, recurse=True):
        """Move and cast the plain weight with the module; a packed one stays on its CPU."""
        super()._apply(fn, recurse)
        if not self.is_packed:
            self.weight = fn(self.weight)
        elif self.bias.device.type != "cpu" or self.bias.dtype != torch.float32:
            raise RuntimeError("This copy is laid out for float32 on the CPU; optimise a new one.")
        return self


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's fused convolutions, which torch.compile itself uses, are there."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


class FusedBasicBlock(nn.Module):
    """`models.hrnet.BasicBlock` in two kernels."""

    def __init__(self, block: BasicBlock):
        super().__init__()
        self.first = FusedConv(block.conv1, block.bn1, "relu")
        self.second = FusedConv(block.conv2, block.bn2, "relu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine a map."""
        return self.second(self.first(x), shortcut=x)


class FusedBottleneck(nn.Module):
    """`models.hrnet.Bottleneck` in three or four kernels."""

    def __init__(self, block: Bottleneck):
        super().__init__()
        self.first = FusedConv(block.conv1, block.bn1, "relu")
        self.second = FusedConv(block.conv2, block.bn2, "relu")
        self.third = FusedConv(block.conv3, block.bn3, "relu")
        self.downsample = nn.Identity()
        if isinstance(block.downsample, nn.Sequential):
            self.downsample = FusedConv(*block.downsample)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ h w"]:
        """Refine a map."""
        return self.third(self.second(self.first(x)), shortcut=self.downsample(x))


class FusedExchange(nn.Module):
    """`models.hrnet.ExchangeModule`; what comes down from finer maps is added by its last conv."""

    def __init__(self, module: ExchangeModule):
        super().__init__()
        _replace_children(module)
        self.branches, self.fuse_layers = module.branches, module.fuse_layers
        for target, layers in enumerate(self.fuse_layers):
            if target:  # the finest map's sum, the last to be added, is followed by the ReLU
                _last_conv(layers[target - 1]).activation = "relu"

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Exchange the information of all resolutions."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, layers in enumerate(self.fuse_layers):
            total = maps[target]
            for source in range(target + 1, len(maps)):
                total = total + layers[source](maps[source])
            for source in range(target):
                *first, last = _flatten(layers[source])
                x = maps[source]
                for conv in first:
                    x = conv(x)
                total = last(x, shortcut=total)
            fused.append(total if target else torch.relu(total))
        return fused


def _note_input_sizes(backbone: nn.Module, side: int) -> None:
    """Tell each convolution what it will see: the shapes of a forward pass without numbers."""
    rehearsal = copy.deepcopy(backbone).to("meta")
    sizes = {}
    for name, module in rehearsal.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: sizes.update({name: list(inputs[0].shape)})
            )
    rehearsal(torch.empty(1, 3, side, side, device="meta"))
    for name, size in sizes.items():
        backbone.get_submodule(name).input_size = size


def _replace_children(module: nn.Module) -> None:
    """Put fused modules in the place of every part that has one."""
    for name, child in module.named_children():
        if isinstance(child, BasicBlock):
            setattr(module, name, FusedBasicBlock(child))
        elif isinstance(child, Bottleneck):
            setattr(module, name, FusedBottleneck(child))
        elif isinstance(child, ExchangeModule):
            setattr(module, name, FusedExchange(child))
        elif isinstance(child, ConvNorm):
            has_activation = isinstance(child.activation, nn.ReLU6)
            child.conv = FusedConv(child.conv, child.norm, "relu6" if has_activation else "none")
            child.norm = child.activation = nn.Identity()
        elif isinstance(child, nn.Sequential) and _is_conv_norm(child):
            conv, norm, *rest = child
            activation = "relu" if rest and isinstance(rest[0], nn.ReLU) else "none"
            rest = [step for step in rest if not isinstance(step, nn.ReLU)]
            setattr(module, name, nn.Sequential(FusedConv(conv, norm, activation), *rest))
        else:
            _replace_children(child)


def _is_conv_norm(steps: nn.Sequential) -> bool:
    return (
        len(steps) > 1 and isinstance(steps[0], nn.Conv2d) and isinstance(steps[1], nn.BatchNorm2d)
    )


def _flatten(steps: nn.Module) -> list[FusedConv]:
    return [step for step in steps.modules() if isinstance(step, FusedConv)]


def _last_conv(steps: nn.Module) -> FusedConv:
    return _flatten(steps)[-1]
