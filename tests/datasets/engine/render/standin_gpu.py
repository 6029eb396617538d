"""A device that stands in for a GPU: tensors on it look like those on "meta" but hold numbers.

Computing with a tensor of the CPU and one of the device fails, as it does on a GPU. What copies
numbers from one to the other, or makes the CPU wait for a number, is counted.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "equal")


class OnDevice(Tensor):
    """A tensor on the device; its numbers are `real`, on the CPU."""

    @staticmethod
    def __new__(cls, real: Tensor):
        return Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
        )

    def __init__(self, real: Tensor):
        self.real_numbers = real

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of a StandInGPU")


class StandInGPU(TorchDispatchMode):
    """While it is active, tensors can be made on DEVICE and computed with."""

    def __init__(self):
        super().__init__()
        self.waits, self.copies = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = any(isinstance(x, OnDevice) for x in given)
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        if name == "lift_fresh" or (name == "_to_copy" and target is not None):
            self._count_copy(name, on_device, target)
        elif on_device:
            stray = [x.shape for x in given if not isinstance(x, OnDevice) and x.ndim]
            if name.startswith("index"):  # places on the CPU are allowed, and copied
                self.copies["to"] += len(stray)
            else:
                assert not stray, f"{name} of the device's tensors and the CPU's, {stray}"
            self._count_wait(name, args)
        if target is not None:
            on_device = torch.device(target).type == DEVICE.type
        result = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        if func._schema.is_mutable and isinstance(args[0], Tensor):
            return args[0]  # changed in place
        return tree_map(_held if on_device else _real, result)

    def _count_copy(self, name: str, on_device: bool, target: torch.device | None) -> None:
        to_device = target is not None and torch.device(target).type == DEVICE.type
        if on_device != to_device:
            self.copies["to" if to_device else "from"] += 1

    def _count_wait(self, name: str, args: tuple) -> None:
        """Count what waits; a list of places that is given as a mask has to be made first."""
        masked = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        self.waits[f"{name} by a mask" if masked else name] += masked or name in WAITING


def _real(value):
    return value.real_numbers if isinstance(value, OnDevice) else value


def _held(value):
    return OnDevice(value) if isinstance(value, Tensor) else value
