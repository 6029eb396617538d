"""Which photos and videos the demo takes, and what their results are called."""

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from smpler.utils.files.photos import ADVICE, PHOTO_FORMATS, is_readable, open_photo, photo_kind
from smpler.utils.files.videos import video_kind
from smpler.utils.paths import display

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
"""A file of such a name is taken for a photo even if it is damaged, so that an error names it."""
NAMED = 3
"""Of many skipped files, how many are named."""


def find_photos(paths: Iterable[Path], videos: bool = False) -> list[Path]:
    """Return the photos, and those of each folder in order of their names; each photo once.

    Files in a folder are judged by their content. What is skipped is named on stderr.

    Args:
        paths: photos, and folders of them.
        videos: take the videos of a folder as well.

    Raises:
        ValueError: a folder holds no photo.
    """
    found = []
    for path in paths:
        found += _photos_of(path, videos) if path.is_dir() else [path]
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.absolute(), path)
    return list(once.values())


def output_names(photos: Sequence[Path]) -> list[str]:
    """Name the results after the photos: `a`, but `a_jpg` and `a_png` where several are called a.

    No two photos get the same name: where these clash as well, a number is appended.
    """
    stems = Counter(photo.stem for photo in photos)
    taken = {stem for stem, count in stems.items() if count == 1}
    names = []
    for photo in photos:
        name = photo.stem
        if stems[name] > 1:
            name = first_name = f"{photo.stem}_{photo.suffix[1:]}"
            number = 1
            while name in taken:
                number += 1
                name = f"{first_name}_{number}"
            taken.add(name)
        names.append(name)
    return names


def is_video(path: Path) -> bool:
    """Say whether a path is a file whose first bytes are a video's."""
    try:
        return path.is_file() and bool(video_kind(path))
    except OSError:  # no permission; reading it will say so
        return False


def _photos_of(folder: Path, videos: bool) -> list[Path]:
    """Return the photos in a folder by name, and say what else is there."""
    photos, unreadable, others = [], defaultdict(list), []
    for path in sorted(folder.iterdir()):
        kind = "photo" if videos and is_video(path) else _kind_in_folder(path)
        if kind == "photo":
            photos.append(path)
        elif kind:
            unreadable[kind].append(path)
        elif path.is_file() and not path.name.startswith("."):
            others.append(path)
    skipped = [
        f"{_files(len(paths), f'{kind} photo')} ({_first(paths)}): {ADVICE[kind]}"
        for kind, paths in unreadable.items()
    ]
    if others:
        skipped.append(f"{_files(len(others), 'file')} ({_first(others)}) not known as photos")
    if not photos:
        content = f": {'; '.join(skipped)}" if skipped else ""
        raise ValueError(
            f"{display(folder)} holds no photo that can be read, such as JPEG, PNG, WebP, BMP, "
            f"TIFF or GIF{', and no video' if videos else ''}{content}."
        )
    for reason in skipped:
        print(f"Note: {display(folder)}: skipped {reason}.", file=sys.stderr)
    return photos


def _kind_in_folder(path: Path) -> str:
    """Return `photo`, a kind of photo that cannot be read here, or nothing for any other file."""
    if not path.is_file():
        return ""
    is_named_photo = path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")
    try:
        kind = photo_kind(path)
    except OSError:  # no permission
        return "photo" if is_named_photo else ""
    if kind:  # a damaged one is taken, so that an error names it
        return "photo" if is_readable(kind) else kind
    try:
        with warnings.catch_warnings(action="ignore"), open_photo(path, PHOTO_FORMATS):
            return "photo"
    except Exception:  # a damaged header can raise anything
        return "photo" if is_named_photo else ""


def _files(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _first(paths: Sequence[Path]) -> str:
    """List the names of the first files."""
    names = [display(path.name) for path in paths[:NAMED]]
    return ", ".join([*names, "..."] if len(paths) > NAMED else names)
