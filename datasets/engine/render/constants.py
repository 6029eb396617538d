"""Numbers that computations on a device need: each device gets them once."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor


class Constant:
    """An array that is copied to a device when it is first used there, and stays.

    A copy from the host makes the host wait for everything that the device has yet to do.

    Args:
        values: numbers.
    """

    def __init__(self, values: ArrayLike | Tensor):
        self._values = torch.as_tensor(values)
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, other: Tensor) -> Tensor:
        """Return it with the dtype and on the device of another tensor."""
        return self.on(other.device, other.dtype)

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        """Return it on a device, by default with its own dtype; it must not be changed."""
        place = device, dtype or self._values.dtype
        if place not in self._copies:
            self._copies[place] = self._values.to(*place)
        return self._copies[place]
