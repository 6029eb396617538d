"""Where assets and weights are, and what to do when one is missing.

In a checkout everything lies in the checkout. An installed package ships the open assets inside
itself, and looks for the user's own files (SMPL, published weights, data sets) in `USER_FOLDER`.
"""

import os
from errno import ENOTDIR
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or the folder of the installed package."""
IS_CHECKOUT = (ROOT / "smpler" / "__init__.py").is_file()
USER_FOLDER = (
    ROOT if IS_CHECKOUT else Path(os.environ.get("SMPLER_HOME") or os.path.expanduser("~/.smpler"))
)
"""The user's own files: the checkout, else $SMPLER_HOME, else ~/.smpler."""
META_DATA, PRETRAINED = ROOT / "meta_data", ROOT / "pretrained"
"""What ships with the project."""
USER_META_DATA, USER_PRETRAINED = USER_FOLDER / "meta_data", USER_FOLDER / "pretrained"
"""What the user puts there."""
SAMPLES = ROOT / "samples"
"""Photos to try; a checkout has them."""


def datasets_root() -> Path:
    """Return the folder of the data sets: $SMPLER_DATASETS if set, else datasets/."""
    moved = os.environ.get("SMPLER_DATASETS")
    return Path(moved) if moved else USER_FOLDER / "datasets"


def require(path: Path) -> Path:
    """Return the path of a file that must exist.

    Raises:
        FileNotFoundError: it does not; the message says where to read how to get it.
    """
    if path.is_file():
        return path
    readme = readme_of(path)
    advice = "Check the path." if readme is None else f"See {display(readme)} for where to get it."
    raise FileNotFoundError(f"{display(path)} is missing. {advice}")


def readme_of(path: Path) -> Path | None:
    """Return the README that says where to get a file, if there is one.

    It lies in the file's folder; for the user's files also in one of the folders above, or in the
    shipped folder of the same name.
    """
    folders = [path.parent]
    if path.is_relative_to(USER_FOLDER):
        above = list(path.relative_to(USER_FOLDER).parents)[:-1]  # deepest first, less the top
        folders += [root / folder for folder in above for root in (USER_FOLDER, ROOT)]
    return first_present(*(folder / "README.md" for folder in folders))


def require_file(path: Path) -> Path:
    """Return the path of a file, or pipe, that must be readable.

    Raises:
        OSError: it is not there, is a folder, or may not be read.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{display(path)} is a folder; name a file.")
    if not path.exists():
        return require(path)
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{display(path)} may not be read; look at its permissions.")
    return path


def require_folder(path: Path) -> Path:
    """Return the path of a folder that must be readable.

    Raises:
        OSError: it is not there, is a file, or may not be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no folder {display(path)}. Check the path.")
    if not path.is_dir():
        raise NotADirectoryError(f"{display(path)} is a file; name a folder.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(f"{display(path)} may not be read; look at its permissions.")
    return path


def require_any(path: Path) -> Path:
    """Return the path of a file or folder that must be readable.

    Raises:
        OSError: it is neither, or may not be read.
    """
    return require_folder(path) if path.is_dir() else require_file(path)


def prepare_folder(folder: Path) -> None:
    """Make a folder for results and write to it once, before hours of work.

    Raises:
        OSError: that is not possible.
    """
    try:
        _write_once(folder / f".write_test_{os.getpid()}")
    except OSError as error:
        raise OSError(
            f"Nothing can be written to {display(folder)} ({error.strerror}); choose another "
            "folder."
        ) from error


def prepare_file(path: Path) -> None:
    """Make the folder of a file of results and write to it once, before hours of work.

    The file itself is not made, and an older one stays.

    Raises:
        OSError: it could not be written.
    """
    try:
        problem = "it is a folder" if path.is_dir() else None
        if path.exists() and not (path.is_dir() or path.is_file()):
            problem = "it is a device or pipe"
        if problem is None:
            _write_once(path.with_name(f"{path.name}.{os.getpid()}.part"))
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise OSError(f"{display(path)} cannot be written ({problem}); name another file.")


def _write_once(probe: Path) -> None:
    """Make a file and its folder, and take the file away."""
    if probe.parent.is_file():
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    probe.unlink()


def first_present(*candidates: Path) -> Path | None:
    """Return the first of the files that exists, or None."""
    return next((path for path in candidates if path.is_file()), None)


def display(path: str | Path) -> str:
    r"""Return the path as a user would write it: relative to the checkout when inside it.

    Bytes that are no UTF-8 are shown as \xNN, so that any path can be printed.
    """
    path = Path(path)
    inside = IS_CHECKOUT and path.is_relative_to(ROOT)
    text = str(path.relative_to(ROOT)) if inside else str(path)
    return os.fsencode(text).decode(errors="backslashreplace")
