"""People who walk through clips that nobody filmed: `TrackResult`s made from a gait."""

import numpy as np
import torch

from smpler import __version__
from smpler.models.body import Body
from smpler.models.smpl import SMPL
from smpler.utils.camera import project_pinhole
from smpler.utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES
from smpler.video.track_result import SCHEMA, TrackResult

STEPS_PER_SECOND = 1.8


def gait(times: np.ndarray) -> np.ndarray:
    """Rotations (t, 24, 3, 3) of somebody who walks towards the camera and turns to the left."""
    pose = np.zeros((len(times), len(SMPL_NAMES), 3))
    swing = np.sin(np.pi * STEPS_PER_SECOND * times)
    for side, sign in (("L", 1), ("R", -1)):
        joint = {name: SMPL_NAMES.index(f"{side}_{name}") for name in ("Hip", "Knee", "Elbow")}
        shoulder = SMPL_NAMES.index(f"{side}_Shoulder")
        pose[:, joint["Hip"], 0] = -0.5 * sign * swing - 0.1
        pose[:, joint["Knee"], 0] = 0.35 + 0.35 * sign * np.cos(np.pi * STEPS_PER_SECOND * times)
        pose[:, joint["Elbow"], 1] = -0.4 * sign
        pose[:, shoulder, 2] = -1.2 * sign
        pose[:, shoulder, 1] = 0.4 * swing
    rotmat = axis_angle_to_rotmat(torch.from_numpy(pose))
    heading = torch.from_numpy(np.stack([0 * times, 1.2 * times, 0 * times], axis=1))
    to_camera = torch.tensor([np.pi, 0, 0], dtype=torch.float64)
    rotmat[:, 0] = axis_angle_to_rotmat(to_camera) @ axis_angle_to_rotmat(heading)
    return rotmat.numpy().astype(np.float32)


def walking_track(
    body: Body,
    num_frames: int = 60,
    track: int = 1,
    first: int = 0,
    fps: float = 30.0,
    betas: np.ndarray | None = None,
    smpl: SMPL | None = None,
) -> TrackResult:
    """Return somebody who comes nearer in num_frames / fps seconds, from frame `first` on."""
    betas = np.zeros(10, np.float32) if betas is None else betas.astype(np.float32)
    frames = np.arange(first, first + num_frames)
    times = frames / fps
    rotmat = gait(times)
    with torch.no_grad():
        shape = torch.from_numpy(betas).expand(num_frames, 10)
        posed = (SMPL(body) if smpl is None else smpl)(torch.from_numpy(rotmat), shape)
    way = np.stack([0.3 * track - 0.5 + 0.2 * times, 0.1 + 0 * times, 5 - 0.5 * times], axis=1)
    translation = way.astype(np.float32)
    joints, keypoints = posed.joints.numpy(), posed.keypoints_3d

    def in_frame(points: np.ndarray) -> np.ndarray:
        pixels = [
            project_pinhole(here + place, 800.0, np.array([320.0, 240.0]))
            for here, place in zip(points, translation, strict=True)
        ]
        return np.stack(pixels)

    return TrackResult(
        schema=SCHEMA,
        version=__version__,
        video="walk.mp4",
        image_size=np.array([640, 480]),
        fps=fps,
        track=track,
        frames=frames,
        times=times,
        is_seen=np.arange(num_frames) != 1,
        box=np.tile([100.0, 50.0, 120.0, 300.0], (num_frames, 1)),
        box_score=np.full(num_frames, 0.9),
        quality=np.full(num_frames, 0.7),
        fit=("applied",) * num_frames,
        fit_residual=np.where(np.arange(num_frames) == 1, np.nan, 4.0),
        crop=np.tile([90, 20, 360, 360], (num_frames, 1)),
        body=body.name,
        body_sha256=body.sha256,
        weights="initial parameters",
        weights_sha256="",
        pose=rotmat_to_axis_angle(rotmat).reshape(num_frames, -1).astype(np.float32),
        rotmat=rotmat,
        betas=betas,
        cam=np.tile([1.0, 0.0, 0.0], (num_frames, 1)),
        focal_length=800.0,
        focal_length_source="diagonal",
        principal_point=np.array([320.0, 240.0]),
        translation=translation,
        joints_3d=joints,
        joints_2d=in_frame(joints),
        joints_confidence=np.full((num_frames, len(SMPL_NAMES)), 0.8),
        joints_std=np.full((num_frames, len(SMPL_NAMES)), 0.03),
        joint_names=SMPL_NAMES,
        keypoints_3d=None if keypoints is None else keypoints.numpy(),
        keypoints_2d=None if keypoints is None else in_frame(keypoints.numpy()),
        keypoints_confidence=np.full((num_frames, len(KEYPOINT_NAMES)), 0.8),
        keypoint_names=KEYPOINT_NAMES,
        vertices=posed.vertices.numpy(),
        faces=body.faces,
    )
