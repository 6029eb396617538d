"""Round a network's pointwise convolutions to int8 so that its outputs hardly move.

Plain rounding moves what a chain of a hundred convolutions says far more than a single one. Here
the error of each rounded column is taken over by the columns that are still to be rounded, weighted
by what the layer sees (Frantar et al., "GPTQ", ICLR 2023), and what is left of its mean goes into
the bias (Nagel et al., "Data-Free Quantization", ICCV 2019).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from smpler.models.weights.quantized import MIN_QUANTIZED, SCALE_PREFIX

DAMPING = 0.01
"""What is added to the moments' diagonal, by its mean."""
STEPS = 127
"""Largest integer."""


def round_network(network: nn.Module, show: Callable[[], object]) -> dict[str, Tensor]:
    """Return a network's tensors: large pointwise weights in int8 with scales, the rest in 16 bits.

    Args:
        network: in eval mode, float32.
        show: runs the network on typical inputs.
    """
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.weight.numel() >= MIN_QUANTIZED
    }
    seen = moments(layers, show)
    tensors = {name: value.half() for name, value in network.state_dict().items()}
    for name, layer in layers.items():
        exact = layer.weight.detach()[:, :, 0, 0].double()
        products, mean = seen[name]
        steps, scale = round_columns(exact, products)
        tensors[f"{name}.weight"] = steps[:, :, None, None]
        tensors[f"{SCALE_PREFIX}{name}.weight"] = scale[:, None, None, None].float()
        assert layer.bias is not None, name
        lost = (exact - steps * scale[:, None]) @ mean
        tensors[f"{name}.bias"] = (layer.bias.detach() + lost).float()
    return tensors


@torch.no_grad()
def moments(
    layers: dict[str, nn.Conv2d], show: Callable[[], object]
) -> dict[str, tuple[Float[Tensor, "c c"], Float[Tensor, "c"]]]:
    """Return of each layer's inputs the mean products of two channels, and the mean."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # (b, c, h, w) -> (c, b * h * w): each pixel is a sample
            x = inputs[0].transpose(0, 1).flatten(1)
            products, total, count = sums.get(name, (torch.zeros(()), torch.zeros(()), 0))
            sums[name] = (products + x @ x.T, total + x.sum(1), count + x.shape[1])

        return add

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    show()
    for hook in hooks:
        hook.remove()
    return {
        name: (products.double() / count, total.double() / count)
        for name, (products, total, count) in sums.items()
    }


def round_columns(
    weight: Float[Tensor, "o c"], products: Float[Tensor, "c c"]
) -> tuple[Int8[Tensor, "o c"], Float[Tensor, "o"]]:
    """Return a matrix in steps of one scale a row, and the scales.

    Args:
        weight: float64.
        products: mean products of two of the inputs.
    """
    # a row of zeros has scale 0: its entries are 0 by any scale
    scale = (weight.abs().amax(dim=1) / STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    damping = DAMPING * products.diagonal().mean() * torch.eye(len(products)).double()
    # columns of large inputs first, as later ones can make up for them
    order = products.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv((products + damping)[order][:, order])
    upper = torch.linalg.cholesky(inverse, upper=True)
    left, steps = weight[:, order], torch.empty_like(weight)
    for number, column in enumerate(order):
        exact = left[:, number]
        steps[:, column] = (exact / scale).round().clamp(-STEPS, STEPS)
        error = (exact - steps[:, column] * scale) / upper[number, number]
        left[:, number + 1 :] -= error[:, None] * upper[number, number + 1 :]
    return steps.to(torch.int8), scale
