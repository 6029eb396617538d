"""Where assets and weights are, and what to do when one is missing."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
META_DATA = ROOT / "meta_data"
PRETRAINED = ROOT / "pretrained"
SAMPLES = ROOT / "samples"


def datasets_root() -> Path:
    """Return the folder of the data sets: $SMPLER_DATASETS if set, else datasets/."""
    moved = os.environ.get("SMPLER_DATASETS")
    return Path(moved) if moved else ROOT / "datasets"


def require(path: Path) -> Path:
    """Return the path of a file that must exist.

    Raises:
        FileNotFoundError: it does not; the message says where to read how to get it.
    """
    if path.is_file():
        return path
    readme = path.parent / "README.md"
    advice = (
        f"See {display(readme)} for where to get it." if readme.is_file() else "Check the path."
    )
    raise FileNotFoundError(f"{display(path)} is missing. {advice}")


def prepare_folder(folder: Path) -> None:
    """Make a folder for results and write to it once, before hours of work.

    Raises:
        OSError: that is not possible.
    """
    probe = folder / f".write_test_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"Nothing can be written to {display(folder)} ({error.strerror}); choose another "
            "folder."
        ) from error


def first_present(*candidates: Path) -> Path | None:
    """Return the first of the files that exists, or None."""
    return next((path for path in candidates if path.is_file()), None)


def display(path: Path) -> str:
    """Return the path as a user would write it: relative to the repository when inside it."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
