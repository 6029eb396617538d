"""The environment variables that torchrun and torch.distributed.launch set for a process."""

import os


def launched_rank() -> int:
    """Return the rank that the launcher gave to this process; 0 without a launcher.

    Raises:
        ValueError: the variable holds something else.
    """
    return _number("RANK", 0)


def launched_processes() -> int:
    """Return how many processes the launcher started; 1 without a launcher.

    Raises:
        ValueError: the variable holds something else.
    """
    return _number("WORLD_SIZE", 1)


def launched_local_rank() -> int:
    """Return this process's number on its machine; 0 without a launcher.

    Raises:
        ValueError: the variable holds something else.
    """
    return _number("LOCAL_RANK", 0)


def check_launcher() -> None:
    """Read all variables of the launcher once.

    Raises:
        ValueError: they are not what a launcher sets.
    """
    launched_local_rank()
    if launched_rank() >= launched_processes():
        raise ValueError(
            f"The environment has RANK={launched_rank()} and WORLD_SIZE={launched_processes()}: "
            "ranks go from 0 to WORLD_SIZE - 1. torchrun sets both; without it, unset both."
        )


def _number(name: str, least: int) -> int:
    """Return the number in a variable; the least one if there is none."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"The environment has {name}={text!r}, which is not a whole number from {least}. "
            "torchrun sets it; without torchrun, unset it."
        )
    return int(text)
