"""Calibrated cameras of Pose2Sim's demos, and the places of points that several of them see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import Float

INLIER = 20.0
"""Points farther from their rays than this do not say where a camera is, pixels."""
WORLD_UP = np.array([0.0, 0.0, 1.0])
"""Pose2Sim's world: z points up. Drawn into the frames of all four cameras, lines along it run
parallel to the edges of windows, doors and cabinets."""


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

    def up(self) -> Float[np.ndarray, "3"]:
        """Return the world's upward direction in the camera's frame."""
        return self.rotation @ WORLD_UP

    def away(self, points: Float[np.ndarray, "n 3"], rays: Float[np.ndarray, "n 2"]) -> float:
        """Return the median distance of points of the world from their rays, pixels."""
        seen = self.see(points)
        away = seen[:, :2] / seen[:, 2:] - rays
        return float(np.median(self.intrinsics[0, 0] * np.linalg.norm(away, axis=1)))

    def posed_by(
        self, points: Float[np.ndarray, "n 3"], rays: Float[np.ndarray, "n 2"]
    ) -> "Camera":
        """Return the camera where it sees points on their rays (PnP, by RANSAC)."""
        _, vector, place, inliers = cv2.solvePnPRansac(
            points, rays[:, None], np.eye(3), None, reprojectionError=INLIER / self.intrinsics[0, 0]
        )
        chosen = np.asarray(inliers, dtype=np.int64)[:, 0]
        vector, place = cv2.solvePnPRefineLM(
            points[chosen], rays[chosen][:, None], np.eye(3), None, vector, place
        )
        return replace(self, rotation=cv2.Rodrigues(vector)[0], translation=place[:, 0])


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


def triangulate(
    seen: Sequence[tuple[Camera, Float[np.ndarray, "2"], float]],
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
