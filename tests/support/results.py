"""Result files of a tiny, made-up person: of a photo, and through a clip."""

from pathlib import Path

import numpy as np

from smpler.models.smpl import SMPL
from smpler.utils.export import SCHEMA as PERSON_SCHEMA
from smpler.video.track_result import SCHEMA as TRACK_SCHEMA

DISTANCE = 3.0
"""From the camera, metres."""


def person_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Return what the viewer reads of a photo's npz, for a body of 20 vertices."""
    rng = np.random.default_rng(seed)
    arrays = {
        "schema": PERSON_SCHEMA,
        "image": "photo.png",
        "image_size": np.array([40, 30]),
        "person": seed,
        "quality": 0.7,
        "focal_length": 50.0,
        "translation": np.array([0.1, 0, DISTANCE], np.float32),
        "joints_3d": rng.normal(0, 0.3, (24, 3)).astype(np.float32),
        "vertices": rng.normal(0, 0.3, (20, 3)).astype(np.float32),
        "faces": rng.integers(0, 20, (30, 3)),
    }
    return {key: np.asarray(value) for key, value in arrays.items()}


def track_arrays(layer: SMPL, frames: np.ndarray, number: int = 1) -> dict[str, np.ndarray]:
    """Return what the viewer reads of a clip's npz: a body that turns by 0.1 radians a frame."""
    count = len(frames)
    turned = np.zeros((count, 24, 3, 3), np.float32) + np.eye(3, dtype=np.float32)
    cos, sin = np.cos(0.1 * frames), np.sin(0.1 * frames)
    turned[:, 0, 0, 0], turned[:, 0, 0, 2] = cos, sin
    turned[:, 0, 2, 0], turned[:, 0, 2, 2] = -sin, cos
    arrays = {
        "schema": TRACK_SCHEMA,
        "video": "clip.avi",
        "image_size": np.array([40, 30]),
        "fps": 10.0,
        "track": number,
        "frames": frames,
        "times": frames / 10,
        "is_seen": np.ones(count, bool),
        "quality": np.full(count, 0.7),
        "focal_length": 50.0,
        "rotmat": turned,
        "betas": np.zeros(10, np.float32),
        "translation": np.tile(np.float32([0, 0, DISTANCE]), (count, 1)),
        "joints_3d": np.zeros((count, 24, 3), np.float32),
        "body": layer.body.name,
        "body_sha256": layer.body.sha256,
    }
    return {key: np.asarray(value) for key, value in arrays.items()}


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, allow_pickle=True, **arrays)  # ty: ignore[invalid-argument-type]
    return path
