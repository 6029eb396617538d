"""Where the people of a photo stand before its one camera, a pinhole.

A crop says how a person looks from the camera, but not where in the photo the crop was: someone at
the photo's edge is seen along a ray that leaves the optical axis, and is turned by as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from smpler.models.smpl import SMPL, Estimate
from smpler.utils.camera import solve_translation
from smpler.utils.image import Box, CropWindow


@dataclass(frozen=True, eq=False)
class Group:
    """People of one photo who are estimated together."""

    image: UInt8[np.ndarray, "h w 3"]
    """The photo, RGB."""
    windows: Sequence[CropWindow]
    """The people's crops, squares."""
    boxes: Sequence[Box]
    """Of the same people, photo pixels."""
    others: Sequence[Box]
    """Boxes of further people in the photo."""
    focal_length: float
    """Pixels."""

    def __len__(self) -> int:
        return len(self.windows)

    def around(self, number: int) -> list[Box]:
        """Return the boxes of everybody but one."""
        return [*self.boxes[:number], *self.boxes[number + 1 :], *self.others]

    def pinhole(self) -> "Pinhole":
        """Return the camera of the photo."""
        size = (self.image.shape[1], self.image.shape[0])
        return Pinhole.of(self.windows, size, self.focal_length)


@dataclass(frozen=True)
class Pinhole:
    """The full-image camera in the crop coordinates of each person."""

    focal: Float[Tensor, "b 2"]
    """Crop coordinates by x / z, and by y / z: windows of whole pixels are not quite square."""
    center: Float[Tensor, "b 2"]
    """The principal point, crop coordinates."""

    @classmethod
    def of(
        cls, windows: Sequence[CropWindow], image_size: tuple[int, int], focal_length: float
    ) -> "Pinhole":
        """Return the camera of a photo, whose principal point is its middle.

        Args:
            windows: of the people's crops.
            image_size: width and height of the photo, pixels.
            focal_length: pixels.
        """
        middle = np.array(image_size) / 2
        focal = [
            [2 * focal_length / side for side in (window.width, window.height)]
            for window in windows
        ]
        center = np.array([window.to_crop(middle) for window in windows]).reshape(-1, 2)
        return cls(torch.tensor(focal), torch.from_numpy(center).float())

    @classmethod
    def joined(cls, pinholes: Sequence["Pinhole"]) -> "Pinhole":
        """Return the cameras of the people of several photos, one after the other."""
        focal, center = (
            torch.cat([getattr(x, name) for x in pinholes]) for name in ("focal", "center")
        )
        return cls(focal, center)

    def to(self, like: Tensor) -> "Pinhole":
        """Return the camera with the type and on the device of a tensor."""
        return Pinhole(self.focal.to(like), self.center.to(like))

    def project(
        self, points: Float[Tensor, "b n 3"], translation: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b n 2"]:
        """Return the crop coordinates of points that are moved by a translation, metres."""
        placed = points + translation[:, None]
        return self.focal[:, None] * placed[..., :2] / placed[..., 2:] + self.center[:, None]

    def slopes(self, places: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n 2"]:
        """Return x / z and y / z of what is seen at crop coordinates."""
        return (places - self.center[:, None]) / self.focal[:, None]

    def rays(self) -> Float[Tensor, "b 3"]:
        """Return the directions in which the crops' middles lie, of length 1, camera frame."""
        middles = self.slopes(torch.zeros_like(self.center)[:, None])[:, 0]
        return F.normalize(F.pad(middles, (0, 1), value=1.0), dim=1)


@dataclass(frozen=True)
class Placement:
    """People before the camera of their photo."""

    estimate: Estimate
    """`joints_2d` and `keypoints_2d` are by the pinhole. `cam` agrees with it in the plane through
    the first joint, parallel to the image, unless a network's answer is left as it is."""
    translation: Float[Tensor, "b 3"]
    """Added to points in the estimate's frame, metres."""
    pinhole: Pinhole


def place(
    smpl: SMPL, estimate: Estimate, pinhole: Pinhole, turn: bool, parts: str = "mesh"
) -> Placement:
    """Put people where the camera of their photo sees them as their crops' cameras do.

    The translation of each is the least-squares one over the joints.

    Args:
        smpl: the body.
        estimate: what a network says of the crops.
        pinhole: of the same people.
        turn: take the global rotations for what is seen along the rays of the crops.
        parts: of the turned bodies, as in `SMPL.estimate`.
    """
    pinhole = pinhole.to(estimate.cam)
    rotmat = estimate.rotmat
    if turn:
        root = rotation_from_axis(pinhole.rays()) @ rotmat[:, 0]
        rotmat = torch.cat([root[:, None], rotmat[:, 1:]], dim=1)
    joints = smpl.skeleton(rotmat, estimate.betas)[0] if turn else estimate.joints
    of_each = (joints, pinhole.slopes(estimate.joints_2d))
    of_each = (x.detach().cpu().double().numpy() for x in of_each)
    translation = [
        solve_translation(points, slopes, 1.0, np.zeros(2))
        for points, slopes in zip(*of_each, strict=True)
    ]
    translation = torch.from_numpy(np.array(translation).reshape(-1, 3)).to(estimate.cam)
    if turn:
        return see(smpl, rotmat, estimate.betas, translation, pinhole, parts)
    placed = with_pinhole(estimate, translation, pinhole)
    return replace(placed, estimate=replace(placed.estimate, cam=estimate.cam))


def see(
    smpl: SMPL,
    rotmat: Float[Tensor, "b 24 3 3"],
    betas: Float[Tensor, "b 10"],
    translation: Float[Tensor, "b 3"],
    pinhole: Pinhole,
    parts: str,
) -> Placement:
    """Pose bodies and see them through the camera; `parts` as in `SMPL.estimate`."""
    cam = torch.zeros_like(translation)  # takes its place below
    return with_pinhole(smpl.estimate(rotmat, betas, cam, parts), translation, pinhole)


def with_pinhole(
    estimate: Estimate, translation: Float[Tensor, "b 3"], pinhole: Pinhole
) -> Placement:
    """Return posed bodies as the camera sees them; the cameras of the estimate are replaced."""
    joints_2d, keypoints = pinhole.project(estimate.joints, translation), estimate.keypoints_3d
    scale = pinhole.focal[:, :1] / (translation[:, 2:] + estimate.joints[:, 0, 2:])
    shift = joints_2d[:, 0] / scale - estimate.joints[:, 0, :2]
    seen = replace(
        estimate,
        cam=torch.cat([scale, shift], dim=1),
        joints_2d=joints_2d,
        keypoints_2d=None if keypoints is None else pinhole.project(keypoints, translation),
    )
    return Placement(seen, translation, pinhole)


def rotation_from_axis(rays: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Return the smallest rotations that take the optical axis to unit rays; z is above -1."""
    x, y, z = rays.unbind(1)
    rest = 1 / (1 + z)
    rows = [
        torch.stack([1 - x * x * rest, -x * y * rest, x], dim=1),
        torch.stack([-x * y * rest, 1 - y * y * rest, y], dim=1),
        torch.stack([-x, -y, z], dim=1),
    ]
    return torch.stack(rows, dim=1)


def with_some_replaced(
    smpl: SMPL, estimate: Estimate, others: Estimate, numbers: Sequence[int]
) -> Estimate:
    """Return an estimate in which the people of some numbers are others."""
    rows = torch.tensor(numbers, device=estimate.cam.device)
    parts = (
        getattr(estimate, name).index_copy(0, rows, getattr(others, name))
        for name in ("rotmat", "betas", "cam")
    )
    return smpl.estimate(*parts)
