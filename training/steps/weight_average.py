"""An exponential moving average of a model's weights (Polyak and Juditsky, 1992)."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages a model's floating-point tensors over its updates, and copies all others.

    torch's AveragedModel averages index buffers too, which rounding then moves, and asks the GPU at
    every step how often it has been updated.

    Args:
        model: whose weights are averaged; `module` is its copy with the averages.
        decay: the share that the old average keeps in an update.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.num_updates = 0
        self._average = get_ema_multi_avg_fn(decay)

    def update(self, model: nn.Module) -> None:
        """Move the averages towards the model's weights; the first update copies them."""
        self.move(model)
        self.num_updates += 1

    @torch.no_grad()
    def move(self, model: nn.Module) -> None:
        """Do as `update`, without counting: a graph plays it back where no Python runs."""
        averages, values = [], []
        for average, value in zip(_tensors(self.module), _tensors(model), strict=True):
            if self.num_updates and average.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:
                average.copy_(value)
        if averages:
            self._average(averages, values, self.num_updates)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
