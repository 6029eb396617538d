"""Clips for tests: written by PyAV, with any times and rotation; frames that say which they are."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (64, 48)
"""Width and height."""


def frame_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey picture whose brightness is its number, with a red top-left quarter."""
    image = np.full((size[1], size[0], 3), 20 + 5 * number, np.uint8)
    image[: size[1] // 2, : size[0] // 2] = [200, 20, 20]
    return image


def number_of(image: np.ndarray) -> int:
    """Which frame a picture is, by its bottom-right corner."""
    return round((float(image[-8:, -8:].mean()) - 20) / 5)


def film(path: Path, times: Sequence[float], size: tuple[int, int] = SIZE) -> Path:
    """Write a video whose frames have these times, seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 90000)
        stream.options = {"crf": "10", "bf": "0"}
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(frame_of(number, size), format="rgb24")
            frame.pts, frame.time_base = round(90000 * time), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path) -> Path:
    """Mark an MP4 as filmed with the camera on its side: players turn it by a quarter."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
