"""What git tracks, for tests about the tree itself."""

import subprocess

from smpler.utils.paths import ROOT


def tracked() -> list[str]:
    """Return the tracked files that are there, relative to the checkout."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def python_files() -> list[str]:
    """Return the tracked Python files."""
    return [name for name in tracked() if name.endswith(".py")]
