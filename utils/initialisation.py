"""Building modules whose random values nobody will see, without drawing them."""

import torch
from torch.overrides import TorchFunctionMode

RANDOM = {"uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_uniform_"}


class WithoutRandomInit(TorchFunctionMode):
    """Leave tensors as they were allocated where `torch.nn.init` would draw random values.

    For modules that get all of these values from a file, or from an initialisation of their own.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer an initialisation with the tensor itself; call everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__ and func.__name__ in RANDOM:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
