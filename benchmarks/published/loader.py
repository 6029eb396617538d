"""The baseline of `benchmarks.loader`: the published data pipeline, plainly.

Written from its description (design notes, tests/golden/augment.npz): the whole photo is decoded,
pasted into a float canvas, rotated there, resized and coloured in float, whatever its size; labels
go through lists joint by joint; the batch holds the image twice, as it is (`ori_img`) and with
ImageNet's mean and deviation taken out. Apart from that it gives the same sample as
`smpler.datasets.human_mesh` does without reduced decoding.
"""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch.utils.data import Dataset

from smpler.datasets.augment import (
    MIRRORED_ANNOTATION,
    MIRRORED_SMPL,
    Augmentation,
    sample_augmentation,
)
from smpler.utils.joints import KEYPOINTS_FROM_ANNOTATION

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class PublishedLoader(Dataset):
    """Samples of a single yaml, always augmented as in training."""

    def __init__(self, path: Path, seed: int = 0):
        config = yaml.safe_load(path.read_text())
        self.files = {name: path.parent / config[name] for name in ("img", "label", "hw")}
        self.starts = {
            name: [int(line) for line in file.with_suffix(".lineidx").read_text().split()]
            for name, file in self.files.items()
        }
        self.rows = [int(line) for line in (path.parent / config["linelist"]).read_text().split()]
        self.handles = {}
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self, name: str, row: int) -> list[str]:
        """Read one row of a table through a file that stays open."""
        if name not in self.handles:
            self.handles[name] = self.files[name].open()
        self.handles[name].seek(self.starts[name][row])
        return [column.strip() for column in self.handles[name].readline().split("\t")]

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return self.load(index, sample_augmentation(rng))

    def load(self, index: int, change: Augmentation) -> dict:
        """Return a sample under a given augmentation."""
        row = self.rows[index]
        encoded = np.frombuffer(base64.b64decode(self.columns("img", row)[-1]), np.uint8)
        image = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        label = json.loads(self.columns("label", row)[-1])[0]
        center, scale = label["center"], label["scale"] * change.scale
        photo = torch.from_numpy(_image(image, center, scale, change)).float() / 255
        return {
            "image": (photo - MEAN) / DEVIATION,
            "ori_img": photo,
            "index": index,
            "key": self.columns("hw", row)[0],
            "keypoints_2d": _joints_2d(label["2d_joints"], center, scale, change),
            "keypoints_3d": _joints_3d(label["3d_joints"], change),
            "pose": _pose(label["pose"], change),
            "betas": torch.tensor(label["betas"]).float(),
            "has_smpl": label["has_smpl"],
            "has_keypoints_2d": label["has_2d_joints"],
            "has_keypoints_3d": label["has_3d_joints"],
            "center": torch.tensor(center).float(),
            "scale": scale,
        }


def _image(
    image: np.ndarray, center: list[float], scale: float, change: Augmentation
) -> np.ndarray:
    left, top = (int(c - 100 * scale) for c in center)
    right, bottom = (int(c + 100 * scale) for c in center)
    pad = 0
    if change.rotation:
        pad = int(np.hypot(right - left, bottom - top) / 2 - (bottom - top) / 2)
    left, top, right, bottom = left - pad, top - pad, right + pad, bottom + pad
    canvas = np.zeros((bottom - top, right - left, 3))
    x0, x1 = max(left, 0), min(right, image.shape[1])
    y0, y1 = max(top, 0), min(bottom, image.shape[0])
    if x0 < x1 and y0 < y1:
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    if change.rotation:
        height, width = canvas.shape[:2]
        middle = ((width - 1) / 2, (height - 1) / 2)
        matrix = cv2.getRotationMatrix2D(middle, change.rotation, 1)
        canvas = cv2.warpAffine(canvas, matrix, (width, height))
        canvas = canvas[pad : height - pad, pad : width - pad]
    crop = cv2.resize(canvas, (224, 224), interpolation=cv2.INTER_LINEAR)
    if change.flip:
        crop = np.fliplr(crop)
    for channel, gain in enumerate(change.gains):
        crop[:, :, channel] = np.minimum(255.0, np.maximum(0.0, crop[:, :, channel] * gain))
    return np.transpose(crop.astype("float32"), (2, 0, 1)).copy()


def _joints_2d(
    joints: list, center: list[float], scale: float, change: Augmentation
) -> torch.Tensor:
    joints = np.array(joints, dtype=np.float64).reshape(24, 3)
    angle = np.deg2rad(-change.rotation)
    to_crop = np.eye(3) * 224 / (200 * scale)
    to_crop[2, 2] = 1
    to_crop[:2, 2] = [224 * (0.5 - c / (200 * scale)) for c in center]
    turn, shift = np.eye(3), np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shift[:2, 2] = -112
    for joint in joints:  # one by one, each with its matrix product
        matrix = np.linalg.inv(shift) @ turn @ shift @ to_crop
        joint[:2] = (matrix @ [joint[0], joint[1], 1])[:2].astype(int) + 1
    joints[:, :2] = 2 * joints[:, :2] / 224 - 1
    if change.flip:
        joints = joints[MIRRORED_ANNOTATION]
        joints[:, 0] = -joints[:, 0]
    return torch.from_numpy(joints[list(KEYPOINTS_FROM_ANNOTATION)]).float()


def _joints_3d(joints: list, change: Augmentation) -> torch.Tensor:
    joints = np.array(joints, dtype=np.float64).reshape(24, 4)
    joints[:, :3] -= joints[14, :3]
    joints[:, :3] = joints[:, :3] @ _turn(change).T
    if change.flip:
        joints = joints[MIRRORED_ANNOTATION]
        joints[:, 0] = -joints[:, 0]
    return torch.from_numpy(joints[list(KEYPOINTS_FROM_ANNOTATION)]).float()


def _pose(pose: list, change: Augmentation) -> torch.Tensor:
    pose = np.array(pose, dtype=np.float64)
    rotmat = _turn(change) @ cv2.Rodrigues(pose[:3])[0]
    pose[:3] = cv2.Rodrigues(rotmat)[0][:, 0]
    if change.flip:
        pose = pose.reshape(24, 3)[MIRRORED_SMPL].reshape(72)
        pose[1::3], pose[2::3] = -pose[1::3], -pose[2::3]
    return torch.from_numpy(pose).float()


def _turn(change: Augmentation) -> np.ndarray:
    angle = np.deg2rad(-change.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
