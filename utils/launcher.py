"""The environment variables that torchrun and torch.distributed.launch set for a process."""

import os


def launched_rank() -> int:
    """Return the rank that the launcher gave to this process; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))


def launched_processes() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))
