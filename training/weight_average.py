"""An exponential moving average of a model's weights (Polyak and Juditsky, 1992)."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Follows a model: numbers with a point are averaged, all others are the model's own.

    torch's AveragedModel averages index buffers too, which rounding then moves, and asks the GPU at
    every step how often it has been updated.

    Args:
        model: what is followed; its copy is `module`.
        decay: the average's share of its next value.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.num_updates = 0
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights in; the first time they are taken as they are."""
        mine, others = [], []
        for own, other in zip(_tensors(self.module), _tensors(model), strict=True):
            if self.num_updates and own.is_floating_point():
                mine.append(own)
                others.append(other.detach())
            else:
                own.copy_(other)
        if mine:
            self._average(mine, others, self.num_updates)
        self.num_updates += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
