"""What torchrun and torch.distributed.launch tell a process by environment variables."""

import os


def launched_rank() -> int:
    """Return the number that the launcher gave to this process; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))
