"""Reading files of tensors without running anything in them, and loading them strictly."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smpler.models.weights.integrity import read_checked
from smpler.models.weights.quantized import dequantize, read_quantized
from smpler.models.weights.torch_files import WEIGHTS
from smpler.utils.files.arrays import read_npz
from smpler.utils.paths import display, require

WRAPPERS = ("module.", "model.")
"""What wrappers put before the names of tensors, beside `_orig_mod.`, which stands anywhere."""
_HEADER_LENGTH = 8
"""Bytes before a safetensors file's header, which is JSON."""


def read_tensors(path: Path) -> Mapping:
    """Read a file of torch or safetensors, which its content tells.

    Entries that hold other than tensors and plain values are left out, unless they are the weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is damaged, or is no mapping.
    """
    with require(path).open("rb") as file:
        head = file.read(_HEADER_LENGTH + 1)
    if head[_HEADER_LENGTH:] == b"{":
        return read_quantized(path)
    content = read_checked(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{display(path)} holds a {type(content).__name__}, not a state dict.")
    return content


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
    check_fits(module, state, source, may_be_absent)
    module.load_state_dict(state, strict=not may_be_absent)


def check_fits(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    may_be_absent: tuple[str, ...] = (),
) -> None:
    """Compare names and shapes as `load_strictly` does, and copy nothing."""
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
        state = {name: value.float() for name, value in dequantize(tensors).items()}
        check_finite(state)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{display(path)} holds no weights of a network: {reason}; get it again."
        ) from error
    return state


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Check that weights are finite in float32.

    Raises:
        ValueError: the first that is not.
    """
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        # a sum is faster to look at, and finite if all are, but for very large weights
        if not value.float().sum().isfinite() and not value.float().isfinite().all():
            raise ValueError(f"{name} has a value that is not finite")


def bare_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return tensors without what Lightning, `torch.compile` and parallel training put before.

    Raises:
        ValueError: two tensors have one name without.
    """
    bare = {}
    for name, value in state.items():
        name = name.replace("_orig_mod.", "")
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        if name in bare:
            raise ValueError(f"{source} holds {name!r} twice, with and without a prefix.")
        bare[name] = value
    return bare


def weights_of(content: Mapping, source: str) -> dict[str, Tensor]:
    """Return the state dict that a file's content is, or that it holds for a training.

    Raises:
        ValueError: there is none.
    """
    state = next((content[name] for name in WEIGHTS if name in content), content)
    are_tensors = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not are_tensors:
        raise ValueError(
            f"{source} holds no state dict of tensors, neither bare nor as {' or '.join(WEIGHTS)}."
        )
    return bare_names(state, source)
