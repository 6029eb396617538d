"""Save and resume a run: whole files or none, with the state of every random generator."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from smpler.utils.paths import display


def save_atomically(content: dict[str, Any], *paths: Path) -> None:
    """Write a checkpoint so that a crash at any moment leaves each old file or the new one.

    Several paths get the same file, written once, where the file system can link.

    Raises:
        OSError: it could not be written.
    """
    first, *others = paths
    part = _part(first)
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        for path in others:
            _copy_atomically(part, path)
        os.replace(part, first)
    except RuntimeError as error:  # how torch passes on that the disk is full
        raise OSError(f"{display(first)} could not be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _copy_atomically(source: Path, path: Path) -> None:
    part = _part(path)
    part.unlink(missing_ok=True)
    try:
        try:
            os.link(source, part)
        except OSError:  # a file system without links
            shutil.copyfile(source, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")


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
