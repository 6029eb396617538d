"""Save and resume a run: whole files or none, with the state of every random generator."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from utils.paths import display


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash at any moment leaves the old file or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save_atomically` wrote; nothing in it is executed.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{display(path)} is not a readable checkpoint: {reason}") from error


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's generators of this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators back; a generator that the state does not hold stays."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
