"""The part that the converters to METRO's TSV layout share: labels, boxes, photos, counts."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from smpler.datasets.human_mesh import decode
from smpler.datasets.labels import LARGEST, Label
from smpler.datasets.tsv import MAX_IMAGE, TsvWriter
from smpler.datasets.tsv_file import BadSampleError, is_cut_off, is_too_large
from smpler.utils.files.text import CONTROL, one_line, read_bytes, shown
from smpler.utils.image import BOX_MARGIN, MAX_PIXELS, Box
from smpler.utils.joints import ANNOTATION_NAMES
from smpler.utils.paths import display

JPEG_QUALITY = 95
MAX_PHOTO = 3 * MAX_IMAGE // 4
"""Bytes of a photo: base64 makes four of three."""
MAX_NAMED = 5
"""Dropped photos that are printed for each reason."""


@dataclass(frozen=True)
class Sample:
    """One person to be written."""

    key: str
    """The photo's path in the original data set."""
    photo: Path
    label: dict


@dataclass(frozen=True)
class Dropped:
    """One person who cannot be written, and why."""

    reason: str
    key: str


def convert(samples: Iterable[Sample | Dropped], out: Path, notes: Iterable[str] = ()) -> int:
    """Write a data set; print what it holds, what was dropped, and what could not be filled.

    Args:
        samples: people, in the order of the rows.
        out: the yaml to write.
        notes: sentences on what the source lacks.

    Returns:
        0, or 1 when not a single sample could be written.
    """
    has, dropped, named = Counter(), Counter(), {}
    with TsvWriter(out) as writer:
        for sample in tqdm(samples, desc=out.name, unit="", disable=None):
            if isinstance(sample, Sample):
                sample = _write(writer, sample)
            if isinstance(sample, Dropped):
                dropped[sample.reason] += 1
                if dropped[sample.reason] <= MAX_NAMED:
                    named.setdefault(sample.reason, []).append(sample.key)
            else:
                has.update(name for name in HAS if sample[HAS[name]])
        num = writer.num_rows
        if num == 0:
            writer.discard()
    print(f"{display(out)}: {num} samples" if num else f"{display(out)}: nothing to write")
    print("  annotated: " + ", ".join(f"{name} {has[name]}" for name in HAS))
    for reason, count in dropped.most_common():
        keys = ", ".join(map(one_line, named[reason])) + (", ..." if count > MAX_NAMED else "")
        print(f"  dropped: {count} {reason} ({keys})")
    for note in notes:
        print(f"  note: {note}")
    return 0 if num else 1


HAS = {"2D": "has_2d_joints", "3D": "has_3d_joints", "SMPL": "has_smpl"}


def _write(writer: TsvWriter, sample: Sample) -> dict | Dropped:
    if CONTROL.search(sample.key):
        return Dropped("photos whose names hold control characters", sample.key)
    try:
        Label.parse(_plain(sample.label), sample.key)
    except BadSampleError as error:
        return Dropped("with an unusable label", str(error))
    photo = read_photo(sample.photo)
    if isinstance(photo, str):
        return Dropped(photo, sample.key)
    writer.add(sample.key, *photo, sample.label)
    return sample.label


def _plain(label: dict) -> dict:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in label.items()}


@lru_cache(maxsize=8)
def read_photo(path: Path) -> tuple[bytes, tuple[int, int]] | str:
    """Return a photo as JPEG (a JPEG unchanged) with height and width, or why there is none."""
    try:
        if not path.is_file():
            return "photos that are missing"
        data = read_bytes(path, MAX_PHOTO)
    except (OSError, ValueError):  # also a name that is too long, or a file
        return "photos that cannot be read"
    if is_too_large(data):
        return f"photos of more than {MAX_PIXELS // 10**6} megapixels"
    image = None if is_cut_off(data) else decode(data)
    if image is None:
        return "photos that cannot be read"
    if data[:2] != b"\xff\xd8":
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        data = cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
    return data, image.shape[:2]


def numbers(value: object, name: str) -> Float[np.ndarray, "n"]:
    """Return a list of numbers, as JSON holds it.

    Raises:
        ValueError: it is something else, or one is not finite.
    """
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        raise ValueError(f"{name} is {shown(value)}, not a list of numbers.")
    try:
        array = np.array(value, np.float64)
    except OverflowError:
        array = np.array([np.inf])
    if not (np.abs(array) <= LARGEST).all():
        raise ValueError(f"{name} is {shown(value)}, not of numbers that are finite in float32.")
    return array


def make_label(
    box: Box,
    joints_2d: Float[np.ndarray, "24 3"] | None = None,
    joints_3d: Float[np.ndarray, "24 4"] | None = None,
    pose: Float[np.ndarray, "72"] | None = None,
    betas: Float[np.ndarray, "10"] | None = None,
    gender: str | None = None,
    scale: float | None = None,
) -> dict:
    """Return a label; parts that are None are filled with zeros and marked as absent.

    Args:
        box: of the person; the crop's side is 1.2 times its longer side.
        scale: side of the crop / 200, when the source states it.
    """
    x, y, width, height = box
    label = {
        "center": [x + width / 2, y + height / 2],
        "scale": BOX_MARGIN * max(width, height) / 200 if scale is None else float(scale),
    }
    parts = {"2d_joints": (joints_2d, (24, 3)), "3d_joints": (joints_3d, (24, 4))}
    for name, (joints, shape) in parts.items():
        present = joints is not None and bool((joints[:, -1] > 0).any())
        label[name] = np.asarray(joints, np.float64) if present else np.zeros(shape)
        label[f"has_{name}"] = int(present)
    has_smpl = pose is not None and betas is not None
    label["pose"] = np.asarray(pose, np.float64) if has_smpl else np.zeros(72)
    label["betas"] = np.asarray(betas, np.float64) if has_smpl else np.zeros(10)
    label["has_smpl"] = int(has_smpl)
    return label | ({"gender": gender} if gender else {})


def box_of(value: object) -> Box:
    """Return a box as JSON holds it: x, y, width, height.

    Raises:
        ValueError: it is something else, or empty.
    """
    box = numbers(value, "box")
    if len(box) != 4 or not box[2:].min() > 0:
        raise ValueError(f"box is {shown(value)}, not x, y, width, height.")
    return tuple(box.tolist())


def box_round(points: Float[np.ndarray, "n 2"]) -> Box:
    """Return the smallest box that contains the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (*low.tolist(), *(high - low).tolist())


def by_name(points: dict[str, Float[np.ndarray, "n"]], columns: int) -> np.ndarray:
    """Put named joints into the annotation's order; the others are zeros.

    Raises:
        ValueError: a name is none of the 24 annotated joints.
    """
    joints = np.zeros((len(ANNOTATION_NAMES), columns))
    for name, point in points.items():
        if name not in ANNOTATION_NAMES:
            raise ValueError(
                f"{shown(name)} is no annotated joint; they are {', '.join(ANNOTATION_NAMES)}."
            )
        joints[ANNOTATION_NAMES.index(name)] = point
    return joints


def run(
    convert_all: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv
) -> int:
    """Run a converter; a user's mistake ends with one line and exit code 2."""
    try:
        return convert_all(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
