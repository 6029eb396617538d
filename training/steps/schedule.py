"""When a training ends, and its learning rate until then: by steps, or by the clock."""

import math
import time
from collections.abc import Callable

from smpler.training.options import TrainOptions


class Schedule:
    """The course of a training.

    Args:
        options: `minutes` bound the time; without them, the number of steps alone counts.
        num_steps: of the whole training.
        clock: seconds, from any time on.
    """

    def __init__(
        self, options: TrainOptions, num_steps: int, clock: Callable[[], float] = time.monotonic
    ):
        self.options, self.num_steps, self.clock = options, num_steps, clock
        self._before, self._since = 0.0, clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, those of earlier processes included."""
        return self._before + self.clock() - self._since

    def start(self, elapsed_s: float | None = None) -> None:
        """Let the time count from here on.

        Args:
            elapsed_s: seconds that an earlier process has trained; None: as many as before.
        """
        self._before = self._before if elapsed_s is None else elapsed_s
        self._since = self.clock()

    @property
    def is_over(self) -> bool:
        """Whether the time is over; never if it is not bounded."""
        return self.options.minutes is not None and self.elapsed_s >= 60 * self.options.minutes

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0 over the whole training."""
        options = self.options
        warmup = min(1.0, (step + 1) / (options.warmup_steps + 1))
        if options.lr_schedule == "constant":
            return options.lr * warmup
        angle = math.pi * step / self.num_steps
        if options.minutes is not None:
            angle = max(angle, math.pi * min(self.elapsed_s / (60 * options.minutes), 1.0))
        return options.lr * warmup * 0.5 * (1 + math.cos(angle))
