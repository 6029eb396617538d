"""Weights in int8: one scale per output channel, in a .safetensors file that describes itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from smpler.utils.files.text import parse_json, shown
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.paths import display

FORMAT = "smpler-weights/1"
SCALE_PREFIX = "scale:"
"""`scale:NAME` holds the scales of the int8 tensor `NAME`."""
MIN_QUANTIZED = 1024
"""Entries of the smallest tensor that is worth it; norms, biases and small tables stay float32."""


def quantize(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round the large tensors to int8 (symmetric, -127 to 127), each channel by its own scale.

    The error of an entry is at most half its channel's scale, which is the channel's largest
    absolute value / 127.
    """
    tensors = {}
    for name, value in state.items():
        if not value.is_floating_point() or value.numel() < MIN_QUANTIZED or value.ndim < 2:
            tensors[name] = value.float() if value.is_floating_point() else value
            continue
        channel = next((axis for axis, size in enumerate(value.shape) if size > 1), 0)
        others = [axis for axis in range(value.ndim) if axis != channel]
        scale = value.float().abs().amax(others, keepdim=True) / 127
        # a channel of zeros has scale 0: its entries are 0 by any scale
        steps = (value.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)).round()
        tensors[name] = steps.to(torch.int8)
        tensors[SCALE_PREFIX + name] = scale
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def dequantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 state that `quantize` rounded.

    Raises:
        ValueError: scales do not fit their tensor.
    """
    state = {}
    for name, value in tensors.items():
        if name.startswith(SCALE_PREFIX):
            continue
        scale = tensors.get(SCALE_PREFIX + name)
        if scale is not None:
            fits = len(scale.shape) == len(value.shape) and all(
                number in (1, size) for number, size in zip(scale.shape, value.shape, strict=True)
            )
            if not fits:
                raise ValueError(f"{name} has scales that do not fit it")
            value = value.float() * scale
        state[name] = value
    return state


def write_quantized(path: Path, state: Mapping[str, Tensor], about: dict) -> None:
    """Write a state dict in int8; the file appears whole or not at all.

    Args:
        about: plain values under `config` and whatever else the reader shall know.

    Raises:
        OSError: it could not be written.
    """
    tensors = quantize(state)
    text = json.dumps(about)
    metadata = {"format": FORMAT, "about": text, "sha256": _fingerprint(tensors)}
    metadata["about_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    # save_file would hide it from other users
    write_bytes_whole(path, save(tensors, metadata))


def read_quantized(path: Path) -> dict:
    """Return `about`'s entries and `model`, the state dict in float32.

    Raises:
        ValueError: the file is damaged or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"{display(path)} is not a readable checkpoint: it is damaged or no safetensors file "
            f"({type(error).__name__}); take another, or get it anew."
        ) from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "nothing")
        raise ValueError(
            f"{display(path)} says {shown(found)} where weights of ours say {FORMAT!r}."
        )
    text = metadata.get("about", "{}")
    of_text = hashlib.sha256(text.encode()).hexdigest()
    is_whole = metadata.get("about_sha256", of_text) == of_text  # older files lack it
    if metadata.get("sha256") != _fingerprint(tensors) or not is_whole:
        raise ValueError(
            f"{display(path)} is damaged: its bytes are not those that were written. Get it anew."
        )
    try:
        about = parse_json(text, "what it says of itself")
        if not isinstance(about, dict):
            raise ValueError(f"it says {shown(about)} of itself, not what its weights are of")
        return about | {"model": dequantize(tensors)}
    except ValueError as error:
        raise ValueError(f"{display(path)} is not a readable checkpoint: {error}") from error


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
