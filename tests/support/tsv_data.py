"""Small data sets in METRO's layout, for tests."""

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

from smpler.datasets.augment import Augmentation
from smpler.datasets.tsv import TsvWriter
from tests.support.standin import GOLDEN


def golden_augmentations() -> list[tuple[str, Augmentation]]:
    """Key and augmentation of each golden sample."""
    return [
        (row["key"], Augmentation(bool(row["flip"]), tuple(row["pn"]), row["rot"], row["sc"]))
        for row in json.loads((GOLDEN / "augment.json").read_text())
    ]


def write_golden_set(path: Path) -> Path:
    """Write the photos and labels on which the golden augmentations were computed."""
    with np.load(GOLDEN / "augment_input.npz") as stored, TsvWriter(path) as writer:
        for number, (key, _) in enumerate(golden_augmentations()):
            label = json.loads(stored[f"{number}.label"].tobytes())
            writer.add(key, stored[f"{number}.jpeg"].tobytes(), (0, 0), label)
    return path


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encode RGB."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Clouds of colour, as photos are at the scale of a pixel."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 32 + 2, width // 32 + 2, 3))
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def person_label(rng: np.random.Generator, height: int = 240, width: int = 320) -> dict:
    """A label with everything in it, all random."""
    joints_2d = np.column_stack([rng.uniform(0.2, 0.8, (24, 2)) * [width, height], np.ones(24)])
    return {
        "center": [width / 2, height / 2],
        "scale": max(height, width) / 200,
        "2d_joints": joints_2d,
        "has_2d_joints": 1,
        "3d_joints": np.column_stack([rng.normal(0, 0.3, (24, 3)), np.ones(24)]),
        "has_3d_joints": 1,
        "pose": rng.normal(0, 0.3, 72),
        "betas": rng.normal(0, 0.5, 10),
        "has_smpl": 1,
        "gender": "f",
    }


def write_random_set(path: Path, num: int = 4, seed: int = 0, **changes) -> Path:
    """Write samples with keys PATH-STEM/0, ...; `changes` go into every label."""
    rng = np.random.default_rng(seed)
    with TsvWriter(path) as writer:
        for number in range(num):
            image = smooth_image(240, 320, seed + number)
            label = person_label(rng) | changes
            writer.add(f"{path.stem}/{number}", jpeg(image), image.shape[:2], label)
    return path


def table(path: Path, name: str) -> Path:
    """Return where a table of a single yaml lies."""
    return path.parent / yaml.safe_load(path.read_text())[name]


def replace_row(table: Path, row: int, content: bytes) -> None:
    """Change one row of a table; its index is made anew on the next use."""
    rows = table.read_bytes().split(b"\n")
    rows[row] = content
    table.write_bytes(b"\n".join(rows))
    table.with_suffix(".lineidx").unlink(missing_ok=True)
