"""Result files of a tiny, made-up person: of a photo, and through a clip."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from smpler.models.smpl import SMPL
from smpler.utils.export import SCHEMA as PERSON_SCHEMA
from smpler.utils.export import PersonResult
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


def made_person(seed: int = 0, **changes) -> PersonResult:
    """A triangle whose corners tell the axes apart: right, up and near in the camera's frame.

    Args:
        seed: of the numbers that mean nothing.
        changes: fields that are other than usual.
    """
    rng = np.random.default_rng(seed)
    person = PersonResult(
        schema=PERSON_SCHEMA,
        version="0",
        image="a.jpg",
        image_size=np.array([640, 480]),
        person=0,
        box=np.array([1.0, 2.0, 3.0, 4.0]),
        box_source="given",
        box_score=1.0,
        quality=0.7,
        fit="applied",
        fit_residual=4.5,
        crop=np.array([0, 0, 10, 10]),
        body="open",
        body_sha256="0" * 64,
        weights="initial parameters",
        weights_sha256="",
        pose=rng.normal(size=72),
        rotmat=rng.normal(size=(24, 3, 3)),
        betas=rng.normal(size=10),
        cam=np.array([1.0, 0.0, 0.0]),
        focal_length=800.0,
        focal_length_source="diagonal",
        principal_point=np.array([320.0, 240.0]),
        translation=np.array([0.0, 0.0, 5.0]),
        vertices=np.array([[0.5, 0.0, 0.0], [0.0, -0.7, 0.0], [0.0, 0.0, -0.3]]),
        faces=np.array([[0, 1, 2]]),
        joints_3d=rng.normal(size=(24, 3)),
        joints_2d=rng.normal(size=(24, 2)),
        joints_confidence=rng.uniform(size=24),
        joints_std=rng.uniform(size=24),
        joint_names=("a",) * 24,
        keypoints_3d=rng.normal(size=(14, 3)),
        keypoints_2d=rng.normal(size=(14, 2)),
        keypoints_confidence=rng.uniform(size=14),
        keypoint_names=("b",) * 14,
    )
    return replace(person, **changes)
