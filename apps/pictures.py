"""Finds the photo or clip that results were made of, and gives its pictures to the viewer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from smpler.apps.results import Person
from smpler.utils.image import read_image
from smpler.utils.paths import SAMPLES, display
from smpler.video.reader import open_folder, open_video

PHOTO_SIDE, FRAME_SIDE = 1280, 640
"""The longest side of a photo and of a clip's frame as the browser gets them, pixels."""

Picture = UInt8[ndarray, "h w 3"]
"""RGB."""


@runtime_checkable
class Pictures(Protocol):
    """The picture of each frame of a photo or clip."""

    def at(self, frame: int) -> Picture | None:
        """Return the picture of a frame; None when there is none."""
        ...


class Still:
    """A photo: the same picture at every frame."""

    def __init__(self, path: Path, size: tuple[int, int]):
        image = read_image(path)
        _check_size(path, (image.shape[1], image.shape[0]), size)
        self._picture = shrunk(image, PHOTO_SIDE)

    def at(self, frame: int) -> Picture | None:
        """Return the photo."""
        return self._picture


class Video:
    """A video, of which one frame at a time is read."""

    def __init__(self, path: Path, size: tuple[int, int]):
        open_video(path)  # says what is wrong with it
        self._capture = cv2.VideoCapture(str(path))
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (int(self._capture.get(side)) for side in sides)
        _check_size(path, (width, height), size)
        self._next = 0

    def at(self, frame: int) -> Picture | None:
        """Return a frame; None when the video ends before it."""
        if frame != self._next:  # frames in a row need no search
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
        done, image = self._capture.read()
        self._next = frame + 1
        return shrunk(image[..., ::-1], FRAME_SIDE) if done else None


class Folder:
    """A folder of frames, of which one at a time is read."""

    def __init__(self, path: Path, size: tuple[int, int]):
        self._files = open_folder(path).files
        height, width = read_image(self._files[0]).shape[:2]
        _check_size(path, (width, height), size)

    def at(self, frame: int) -> Picture | None:
        """Return a frame; None when there are fewer."""
        if frame >= len(self._files):
            return None
        return shrunk(read_image(self._files[frame]), FRAME_SIDE)


def find_pictures(person: Person, given: Path | None = None) -> Pictures | None:
    """Open the photo or clip of a result: the given one, else the first of its name nearby.

    Args:
        person: whose.
        given: the user's path.

    Returns:
        None when there is no such file nearby, or none of the size that the result names.

    Raises:
        FileNotFoundError: the given file is missing.
        ValueError: the given file cannot be read, or has another size.
    """
    if given is not None:
        return _open(person, given)
    for path in _places(person):
        try:
            return _open(person, path)
        except (OSError, ValueError):  # another photo of the same name
            continue
    return None


def _open(person: Person, path: Path) -> Pictures:
    kind = Still if not person.is_clip else Folder if path.is_dir() else Video
    return kind(path, person.image_size)


def _places(person: Person) -> Iterator[Path]:
    """Yield files of the photo's name: beside the result, one folder above, here, in samples/."""
    folder = person.path.absolute().parent
    for place in (folder, folder.parent, Path.cwd(), SAMPLES):
        if person.media and (place / person.media).exists():
            yield place / person.media


def _check_size(path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        is_, was = (f"{width} x {height}" for width, height in (size, expected))
        raise ValueError(f"{display(path)} has {is_} pixels, but the result is of {was} pixels.")


def shrunk(image: Picture, longest: int) -> Picture:
    """Return a picture whose longer side is at most so many pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
