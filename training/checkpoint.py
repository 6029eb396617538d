"""Save and resume a run: checkpoints written whole or not at all, and generators' states."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from smpler.models.weights.integrity import read_checked, save_sealed
from smpler.utils.files.whole import not_written, replacing
from smpler.utils.paths import display

MUST_AGREE = ("config", "body", "batch_size", "num_samples", "cache_features", "seed")
"""Entries of a run's identity that stay the same when the run is continued."""


def save_atomically(content: dict[str, Any], *paths: Path) -> None:
    """Write a checkpoint so that a crash at any moment leaves each old file or the new one.

    Several paths get the same file, written once, where the file system can link.

    Raises:
        OSError: it could not be written.
    """
    first, *others = paths
    with replacing(first) as part:
        try:
            with part.open("w+b") as file:
                save_sealed(content, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch's word for a full disk
            raise not_written(first, error) from error
        for path in others:
            with replacing(path) as other:
                _link(part, other)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # a file system without links
        shutil.copyfile(source, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save_atomically` wrote; nothing in it is executed.

    Raises:
        ValueError: it cannot be read, or is damaged.
    """
    content = read_checked(path)
    if not isinstance(content, dict):
        raise ValueError(f"{display(path)} holds a {type(content).__name__}, not a run's state.")
    return content


def check_continues(
    state: dict[str, Any],
    source: str,
    identity: dict,
    world_size: int,
    averages: bool,
    factors: list[float],
) -> None:
    """Make sure that a run can go on from a checkpoint exactly.

    Args:
        state: the checkpoint's content.
        source: its name in messages.
        identity: of the run, see `smpler.training.trainer.Trainer`.
        world_size: number of the run's processes.
        averages: whether the run keeps an average of the weights.
        factors: of the run's groups of parameters, see
            `smpler.training.steps.optimizer.parameter_groups`.

    Raises:
        ValueError: the checkpoint is of another run, or of the same run with other settings.
    """
    if "random_states" not in state:
        raise ValueError(f"{source} was not written by a training run of this program.")
    if len(state["random_states"]) != world_size:
        raise ValueError(
            f"{source} was written by {len(state['random_states'])} processes, but there are "
            f"{world_size}: start as many, or begin anew from it with --load_checkpoint."
        )
    if (state["trained"] is None) == averages:
        raise ValueError(
            f"{source} was trained {'with' if state['trained'] else 'without'} --ema: "
            "continue likewise, or use another --exp_name."
        )
    for key in MUST_AGREE:
        if state.get(key) != identity.get(key):
            raise ValueError(
                f"{source} was trained with {key} {state.get(key)}, but now it is "
                f"{identity.get(key)}: continue with the same, or use another --exp_name."
            )
    saved_factors = [group.get("factor", 1.0) for group in state["optimizer"]["param_groups"]]
    if saved_factors != factors:
        flag = "--regressor_lr" if identity.get("cache_features") else "--backbone_lr"
        raise ValueError(
            f"{source} was trained with {flag} {saved_factors[-1]:g}, but now it is "
            f"{factors[-1]:g}: continue with the same, or use another --exp_name."
        )


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's generators of this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore the generators; one that the state lacks stays as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
