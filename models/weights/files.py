"""Reading files of tensors without running anything in them, and loading them strictly."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smpler.models.weights.integrity import load_checked
from smpler.models.weights.quantized import dequantize, read_quantized
from smpler.utils.files.arrays import read_npz
from smpler.utils.paths import display, require


def read_tensors(path: Path) -> Mapping:
    """Read a torch file that may hold tensors and plain values only, or a .safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is damaged, or is no mapping.
    """
    require(path)
    if path.suffix == ".safetensors":
        return read_quantized(path)
    try:
        content, is_whole = load_checked(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{display(path)} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{display(path)} holds a {type(content).__name__}, not a state dict.")
    if not is_whole:
        raise ValueError(damaged(path))
    return content


def damaged(path: Path) -> str:
    """Say that a checkpoint does not hold what was written."""
    return (
        f"{display(path)} is damaged: its bytes are not those that were written. Take another "
        "checkpoint, or get it anew."
    )


def load_strictly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    may_be_absent: tuple[str, ...] = (),
) -> None:
    """Copy tensors into a module; each on both sides is accounted for.

    Args:
        source: what to call the tensors' origin in a message.
        may_be_absent: the module's tensors that keep their values when the file lacks them.

    Raises:
        ValueError: names or shapes differ; the message lists the first of them.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in state and name not in may_be_absent]
    unexpected = [name for name in state if name not in expected]
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {first(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", unexpected),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{source} does not fit the model; tensors {'; '.join(problems)}.")
    module.load_state_dict(state, strict=not may_be_absent)


def first(names: list[str], count: int = 3) -> str:
    """List a few names."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read a shipped network's npz as a state dict in float32; int8 tensors have scales beside.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds other than tensors.
    """
    arrays = read_npz(path)
    try:
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return {name: value.float() for name, value in dequantize(tensors).items()}
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{display(path)} holds no weights of a network: {reason}") from error
