"""Clips, read frame by frame: video files, folders of frames, and cameras.

Videos are read by OpenCV, which turns frames upright by the file's rotation flag. Frames come out
at an even rate: where a phone's file skips or stretches frames, the one nearest in time is taken
again or left out, so that motion keeps its speed.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said in one sentence here

import cv2
import numpy as np
from jaxtyping import UInt8

from smpler.utils.files.photos import PHOTO_FORMATS, open_photo
from smpler.utils.files.whole import write_whole
from smpler.utils.image import read_image
from smpler.utils.paths import display

MIN_FPS, MAX_FPS = 0.1, 1000.0
"""Frame rates outside this are no rates of a clip."""
DEFAULT_FPS = 30.0
"""Of a folder of frames, when nothing else is said."""
MAX_SIDE = 8192
"""Pixels of a frame's longer side."""
EARLY = 0.5
"""The last frame counts for moments up to so many frames after it."""
ROUNDING = 1e-6
"""Seconds."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a clip."""

    number: int
    """In the clip, from 0."""
    time: float
    """Seconds from the clip's start."""
    image: UInt8[np.ndarray, "h w 3"]
    """RGB, upright."""


@dataclass(frozen=True)
class Part:
    """Which frames of a clip are taken."""

    start: float = 0.0
    """Seconds."""
    stop: float | None = None
    """Seconds; None: the clip's end."""
    every: int = 1
    """Step from one frame that is taken to the next."""


@runtime_checkable
class Clip(Protocol):
    """A sequence of pictures of one size."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second, of all frames."""
        ...

    @property
    def count(self) -> int | None:
        """How many frames there are, as far as is known."""
        ...

    def frames(self) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
        """Yield the time [s] and the picture of each frame, RGB."""
        ...


@dataclass(frozen=True)
class VideoFile:
    """A video, read by OpenCV."""

    path: Path
    fps: float
    count: int | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def frames(self) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
        """Yield the time [s] and the picture of each frame that can be read."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            number, last = 0, -1.0
            while True:
                read, image = capture.read()
                if not read:
                    return
                seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if not np.isfinite(seconds) or seconds <= last:  # the file does not say
                    seconds = number / self.fps if last < 0 else last + 1 / self.fps
                yield seconds, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                number, last = number + 1, seconds
        finally:
            capture.release()


@dataclass(frozen=True)
class FrameFolder:
    """A folder of frames, in the order of their names."""

    path: Path
    files: tuple[Path, ...]
    fps: float

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.files)

    def frames(self) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
        """Yield the time [s] and the picture of each frame.

        Raises:
            ValueError: a file is no picture.
        """
        for number, file in enumerate(self.files):
            yield number / self.fps, read_image(file)


def open_video(path: Path) -> VideoFile:
    """Open a video file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: OpenCV can read no frame of it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{display(path)} is missing; check the path.")
    capture = cv2.VideoCapture(str(path))
    try:
        read, image = capture.read() if capture.isOpened() else (False, None)
        fps, count = (capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    if not read or image is None:
        raise ValueError(
            f"{display(path)}: no frame of this video can be read; it is damaged, or of a format "
            "that OpenCV does not know; convert it to MP4 (H.264)."
        )
    if max(image.shape[:2]) > MAX_SIDE:
        raise ValueError(
            f"{display(path)}: its frames are {image.shape[1]} x {image.shape[0]} pixels; the "
            f"longer side may have {MAX_SIDE}; make it smaller."
        )
    known = np.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS
    return VideoFile(path, fps if known else DEFAULT_FPS, int(count) if 0 < count < 2**31 else None)


def open_folder(path: Path, fps: float = DEFAULT_FPS) -> FrameFolder:
    """Open a folder of frames.

    Raises:
        ValueError: it holds no picture.
    """
    files = tuple(file for file in sorted(path.iterdir()) if _is_picture(file))
    if not files:
        raise ValueError(f"{display(path)} holds no frame that can be read, such as PNG or JPEG.")
    return FrameFolder(path, files, fps)


def record(camera: int, folder: Path, seconds: float | None) -> FrameFolder:
    """Record a camera into a folder of JPEGs, until the time is over or Ctrl-C is pressed.

    Args:
        camera: OpenCV's number.
        folder: is made.
        seconds: how long; None: until Ctrl-C.

    Raises:
        ValueError: there is no such camera, or it gives no frame.
    """
    capture = cv2.VideoCapture(camera)
    files, times = [], []
    try:
        start = time.monotonic()
        while seconds is None or time.monotonic() - start < seconds:
            read, image = capture.read() if capture.isOpened() else (False, None)
            if not read or image is None:
                break
            times.append(time.monotonic() - start)
            folder.mkdir(parents=True, exist_ok=True)
            files.append(folder / f"{len(files):06d}.jpg")
            content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            write_whole(files[-1], lambda file, content=content: file.write(content))
    except KeyboardInterrupt:
        pass  # how a recording without an end is ended
    finally:
        capture.release()
    if not files:
        raise ValueError(f"--webcam {camera} gives no picture; is there such a camera?")
    fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else DEFAULT_FPS
    return FrameFolder(folder, tuple(files), float(np.clip(fps, MIN_FPS, MAX_FPS)))


def used_fps(clip: Clip, part: Part) -> float:
    """Return the frames a second that are used."""
    return clip.fps / part.every


def used_count(clip: Clip, part: Part) -> int | None:
    """Return about how many frames are used, as far as is known."""
    if clip.count is None:
        return None
    last = clip.count / clip.fps if part.stop is None else min(part.stop, clip.count / clip.fps)
    return max(0, round((last - part.start) * used_fps(clip, part)))


def used_frames(clip: Clip, part: Part, skip: int = 0) -> Iterator[Frame]:
    """Yield the frames of a part of a clip at an even rate, all of the first one's size.

    Args:
        clip: is read from its beginning.
        part: which frames are taken.
        skip: how many of them are left out at first.

    Raises:
        ValueError: a frame cannot be read, or is of another size.
    """
    step, taken, shape, before = 1 / used_fps(clip, part), 0, None, None
    for number, (seconds, image) in enumerate(clip.frames()):
        if part.stop is not None and seconds >= part.stop - EARLY / clip.fps:
            return
        if shape is not None and image.shape != shape:
            raise ValueError(
                f"{clip.name}: frame {number} has {image.shape[1]} x {image.shape[0]} pixels, but "
                f"the first has {shape[1]} x {shape[0]}; a clip's frames are of one size."
            )
        shape = image.shape
        # at an uneven rate a frame may be taken more than once, or not at all
        while (moment := part.start + taken * step) <= seconds + EARLY / clip.fps:
            is_late = before is not None and moment - before[1] <= seconds - moment + ROUNDING
            known, _, picture = before if before is not None and is_late else (number, 0, image)
            if taken >= skip:
                yield Frame(known, moment, picture)
            taken += 1
        before = number, seconds, image


def breaks_off(clip: Clip, number: int) -> bool:
    """Say whether a clip ends long before it should, its last frame being of this number."""
    return clip.count is not None and number + 1 < clip.count - max(2, 0.01 * clip.count)


def _is_picture(path: Path) -> bool:
    if not path.is_file() or path.name.startswith("."):
        return False
    try:
        with open_photo(path, PHOTO_FORMATS):
            return True
    except Exception:  # a damaged header can raise anything
        return False
