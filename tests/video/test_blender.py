import json
import subprocess
import sys

import numpy as np
import pytest

from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.visualize import palette
from smpler.utils.paths import ROOT
from smpler.video.track_result import save_clip_glb
from tests.support.clips import walking_track
from tests.utils.test_rig import BETAS

TO_BLENDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the camera's frame to Blender's: z up, away is +y."""


@pytest.mark.blender
def test_blender_imports_a_clip_as_armatures_that_move_upright_in_metres(tmp_path):
    body = open_body()
    smpl = SMPL(body)
    tracks = [
        walking_track(body, 60, track=1, smpl=smpl),
        walking_track(body, 30, track=2, first=20, betas=BETAS, smpl=smpl),
    ]
    rigs = [body.rig(track.betas) for track in tracks]
    save_clip_glb(tmp_path / "walk_scene.glb", tracks, rigs, palette(2))
    tracks[1].save(tmp_path, "walk", rigs[1])
    frames = [0, 19, 20, 35, 49, 50, 59]
    files = [tmp_path / "walk_scene.glb", tmp_path / "walk_track2.bvh"]
    command = [sys.executable, "-m", "tests.video.blender_reader", *files, *frames]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    glb = said["glb"]
    for track in tracks:
        bones = glb["bones"][f"person_{track.track}_skeleton"]
        assert sorted(bones) == sorted(track.joint_names) and len(bones) == 24
        assert glb["parents"][f"person_{track.track}"] == f"person_{track.track}_skeleton"
    assert list(glb["actions"].values()) == [[0.0, 59.0]] and glb["cameras"] == ["photo_camera"]
    for track in tracks:
        name, stated = f"person_{track.track}", glb["extras"][f"person_{track.track}"]
        for frame in frames:
            found = np.array(glb["frames"][str(frame)]["meshes"][name])
            if frame not in track.frames:
                assert np.ptp(found, axis=0).max() < 1e-6, f"{name} is hidden in frame {frame}"
                continue
            at = frame - track.frames[0]
            expected = (track.vertices[at] + track.translation[at]) @ TO_BLENDER.T
            away = 1000 * np.linalg.norm(found - expected, axis=1)
            print(f"{name} frame {frame}: {away.mean():.3f} mm, largest {away.max():.3f} mm")
            assert away.max() < stated + 0.1 and away.mean() < 1, (name, frame, away.max())
            size = np.ptp(found, axis=0)
            assert size[2] == size.max() and 1.4 < size[2] < 2.1, (name, frame, size)
            places = glb["frames"][str(frame)]["joints"][f"{name}_skeleton"]
            heads = np.array([places[joint] for joint in track.joint_names])
            joints = (track.joints_3d[at] + track.translation[at]) @ TO_BLENDER.T
            error = np.abs(heads - joints).max()
            assert error < 1e-3, (name, frame, error)
    assert said["bvh"]["fps"] == pytest.approx(30) and said["bvh"]["length"] == 30
    for frame in (0, 19):
        places = said["bvh"]["frames"][str(frame)]
        heads = np.array([places[joint] for joint in tracks[1].joint_names])
        joints = (tracks[1].joints_3d[frame] + tracks[1].translation[frame]) @ TO_BLENDER.T
        error = np.abs(heads - joints).max()
        print(f"bvh frame {frame}: {1000 * error:.4f} mm")
        assert error < 1e-3, (frame, error)
