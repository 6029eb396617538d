"""How fast a training is, and how much of a GPU's memory it takes."""

import time

import torch


class Speed:
    """Images a second, of all processes together, since the last summary and in an epoch.

    Args:
        images_per_step: of all processes together.
        device: of this process.
    """

    def __init__(self, images_per_step: int, device: torch.device):
        self.images_per_step, self.device = images_per_step, device
        # steps done, and when: at the last summary, and after this process's first of the epoch
        self._summarised = (0, time.perf_counter())
        self._first_done: tuple[int, float] | None = None

    def begin(self, step: int) -> None:
        """Begin an epoch after so many steps."""
        self._summarised, self._first_done = (step, time.perf_counter()), None
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def note(self, step: int) -> None:
        """Note that so many steps are done."""
        self._first_done = self._first_done or (step, time.perf_counter())

    def since_summary(self, step: int) -> float:
        """Return the speed since the last call, or since the epoch's begin."""
        speed = self._since(step, *self._summarised)
        self._summarised = (step, time.perf_counter())
        return speed

    def of_epoch(self, step: int) -> str | None:
        """Say how fast the epoch was, and on a GPU how much memory it took at most.

        The first step is left out: loading processes start before it, and cuDNN chooses its
        algorithms in it. None if there was no other.
        """
        if self._first_done is None or self._first_done[0] == step:
            return None
        text = f"{self._since(step, *self._first_done):.1f} images/s"
        if self.device.type == "cuda":
            # reserved: a recorded step allocates nothing when it is played back
            text += f", at most {torch.cuda.max_memory_reserved(self.device) / 2**30:.1f} GiB"
        return text

    def _since(self, step: int, before: int, then: float) -> float:
        return (step - before) * self.images_per_step / (time.perf_counter() - then)
