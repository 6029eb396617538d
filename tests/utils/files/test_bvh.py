import re

import numpy as np
import pytest
from bvh import Bvh
from scipy.spatial.transform import Rotation

from smpler.models.body import open_body
from smpler.utils.files.bvh import bvh, euler_zxy
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS
from smpler.utils.rig import Motion
from tests.utils.test_rig import BETAS, pose_by_layer, some_pose


def forward_kinematics(file: Bvh, frame: int) -> dict[str, np.ndarray]:
    """Places of the joints, centimetres, by the channels in the order that the file states."""
    places, turned = {}, {}
    for name in file.get_joints_names():
        parent = file.joint_parent(name)
        offset = np.array(file.joint_offset(name))
        channels = file.joint_channels(name)
        values = dict(zip(channels, file.frame_joint_channels(frame, name, channels), strict=True))
        moved = np.array([values.get(f"{axis}position", 0.0) for axis in "XYZ"])
        own = np.eye(3)
        for channel in channels:
            if channel.endswith("rotation"):
                axis = channel[0].lower()
                own = own @ Rotation.from_euler(axis, values[channel], degrees=True).as_matrix()
        if parent is None:
            places[name], turned[name] = offset + moved, own
        else:
            places[name] = places[parent.name] + turned[parent.name] @ (offset + moved)
            turned[name] = turned[parent.name] @ own
    return places


def test_another_reader_finds_our_joints():
    body, rotmat = open_body(), some_pose(4)
    rig, (_, joints) = body.rig(BETAS), pose_by_layer(body, rotmat, BETAS)
    translation = np.random.default_rng(2).normal(size=(4, 3))
    motion = Motion.of(rotmat, joints[:, 0] + translation)
    text = bvh(rig, motion, 25.0)
    file = Bvh(text)
    assert file.nframes == 4 and file.frame_time == pytest.approx(1 / 25)
    names = file.get_joints_names()
    assert set(names) == set(SMPL_NAMES) and len(names) == 24
    for name, parent in zip(SMPL_NAMES, SMPL_PARENTS, strict=True):
        above = file.joint_parent(name)
        assert (above.name if above else None) == (None if parent < 0 else SMPL_NAMES[parent])
    expected = (joints + translation[:, None]) * [1, -1, -1]
    for frame in range(4):
        found = forward_kinematics(file, frame)
        error = max(
            np.abs(found[name] / 100 - expected[frame, number]).max()
            for number, name in enumerate(SMPL_NAMES)
        )
        assert error < 1e-5, (frame, error)
    ends = re.findall(r"End Site\s*\{\s*OFFSET (\S+) (\S+) (\S+)", text)
    assert len(ends) == 5
    assert all(1 < np.linalg.norm(np.array(end, float)) < 20 for end in ends), ends


def test_angles_give_the_rotations_back_even_where_two_axes_meet():
    quarter = Rotation.from_euler("ZXY", [[30, 90, 50], [0, -90, 10], [10, 89.99999, 20]], True)
    random = Rotation.random(200, random_state=0)
    rotmat = np.concatenate([quarter.as_matrix(), random.as_matrix()])[:, None]
    angles = euler_zxy(rotmat)
    back = Rotation.from_euler("ZXY", angles[:, 0]).as_matrix()
    error = np.abs(back - rotmat[:, 0]).max()
    assert error < 1e-7, error


def test_angles_do_not_jump():
    """Turning round twice, and a knee that bends beyond a right angle."""
    times = np.linspace(0, 1, 100)
    turning = Rotation.from_euler("ZXY", np.stack([0 * times, 0.2 + 0 * times, 12 * times], 1))
    bending = Rotation.from_rotvec(2.6 * times[:, None] * [1, 0, 0])
    angles = euler_zxy(np.stack([turning.as_matrix(), bending.as_matrix()], axis=1))
    steps = np.abs(np.diff(angles, axis=0)).max()
    assert steps < 0.2, steps
