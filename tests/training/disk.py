"""A disk that is full, as far as this process can see."""

import resource
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def full_disk(num_bytes: int) -> Generator[None, None, None]:
    """Let every write fail that would make a file longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
