import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses.amass import TO_Y_UP, read_amass
from smpler.datasets.engine.poses.anatomy import remove_heading
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.visualize import palette
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.paths import ROOT
from smpler.video.track_result import MESH_FIELDS, TrackResult, save_clip_glb
from tests.support.clips import walking_track
from tests.utils.files.test_bvh import Bvh, forward_kinematics
from tests.utils.files.test_skinned import SkinnedFile
from tests.utils.test_rig import BETAS

AMASS_KEYS = ["poses", "trans", "gender", "mocap_framerate", "surface_model_type"]


@pytest.fixture
def track(tiny_body) -> TrackResult:
    return walking_track(tiny_body, 8, track=2, first=3, betas=BETAS)


def saved(track: TrackResult, rig, folder) -> dict[str, np.ndarray]:
    track.save(folder, "walk", rig)
    with np.load(folder / f"walk_track{track.track}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def test_the_npz_holds_every_field_and_amass_keys(track, tiny_body, tmp_path):
    arrays = saved(track, tiny_body.rig(BETAS), tmp_path)
    assert set(arrays) == {field.name for field in fields(TrackResult)} | set(AMASS_KEYS)
    for name, value in track.to_dict().items():
        kind = arrays[name].dtype.kind
        same = np.array_equal(arrays[name], np.asarray(value), equal_nan=kind == "f")
        assert same and kind in "biufU", name
    assert np.isnan(arrays["fit_residual"]).tolist() == (~arrays["is_seen"]).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "walk_track2.bvh",
        "walk_track2.npz",
    ]


def test_meshes_and_what_is_missing_are_left_out(track, tiny_body, tmp_path):
    names = ["vertices", "keypoints_3d", "keypoints_2d", "joints_std"]
    arrays = saved(replace(track, **dict.fromkeys(names)), tiny_body.rig(BETAS), tmp_path)
    left_out = {*names, *MESH_FIELDS}
    assert set(track.to_dict()) - set(arrays) == left_out and left_out <= set(track.to_dict())


def test_the_docs_list_exactly_the_keys():
    page = (ROOT / "docs" / "output.md").read_text()
    section = page.split("<!-- track schema -->")[1]
    keys = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert keys == [field.name for field in fields(TrackResult)] + AMASS_KEYS


def test_our_reader_of_amass_files_finds_the_same_rotations(track, tiny_body, tmp_path):
    """All but the heading, which it removes, and the hands, which AMASS has fingers for."""
    arrays = saved(track, tiny_body.rig(BETAS), tmp_path)
    assert arrays["poses"].shape == (8, 156) and not arrays["poses"][:, 66:].any()
    read = read_amass(tmp_path / "walk_track2.npz", frames_per_second=track.fps)
    found = axis_angle_to_rotmat(torch.from_numpy(read).double()).numpy()
    error = np.abs(found[:, 1:22] - track.rotmat[:, 1:22]).max()
    assert error < 1e-5, error
    world = Rotation.from_euler("x", 180, degrees=True) * Rotation.from_matrix(track.rotmat[:, 0])
    error = np.abs(found[:, 0] - remove_heading(world).as_matrix()).max()
    assert error < 1e-5, error
    upright = TO_Y_UP.as_matrix() @ Rotation.from_rotvec(arrays["poses"][0, :3]).as_matrix()
    assert upright[1, 1] > 0.99, "up is up"


def test_smpls_formula_puts_amass_numbers_where_our_translation_does(track, tiny_body):
    """AMASS's (x, y, z) is the camera's (x, z, -y)."""
    amass = track.amass()
    pose = np.zeros((8, 24, 3))
    pose[:, :22] = amass["poses"].reshape(8, 52, 3)[:, :22]
    pose[:, 22:] = track.pose.reshape(8, 24, 3)[:, 22:]
    layer = SMPL(tiny_body).double()
    betas = torch.from_numpy(track.betas).double().expand(8, 10)
    posed = layer(torch.from_numpy(pose.reshape(8, 72)), betas).vertices.numpy()
    x, y, z = np.moveaxis(track.vertices + track.translation[:, None], -1, 0)
    error = np.abs(posed + amass["trans"][:, None] - np.stack([x, z, -y], axis=-1)).max()
    assert error < 1e-5, error


def test_the_open_body_is_not_passed_off_as_smpl(track):
    kinds = {name: replace(track, body=name).amass() for name in ("open", "smpl", "SMPL_MALE.npz")}
    assert [kinds[name]["surface_model_type"] for name in kinds] == ["open", "smpl", "smpl"]
    assert kinds["open"]["gender"] == "neutral" and kinds["open"]["mocap_framerate"] == 30.0


def test_the_skeletons_motion_has_our_joints_before_the_camera(track, tiny_body, tmp_path):
    saved(track, tiny_body.rig(BETAS), tmp_path)
    file = Bvh((tmp_path / "walk_track2.bvh").read_text())
    assert file.nframes == 8 and file.frame_time == pytest.approx(1 / 30)
    for frame in (0, 7):
        found = forward_kinematics(file, frame)
        places = np.stack([found[name] for name in track.joint_names]) / 100
        expected = (track.joints_3d[frame] + track.translation[frame]) * [1, -1, -1]
        error = np.abs(places - expected).max()
        assert error < 1e-3, (frame, error)


def test_a_clips_people_are_within_the_stated_distance_of_their_meshes(tmp_path):
    """Of the open body: two people, the second of whom comes later."""
    body = open_body()
    smpl = SMPL(body)
    tracks = [
        walking_track(body, 4, track=1, smpl=smpl),
        walking_track(body, 3, track=4, first=1, betas=BETAS, smpl=smpl),
    ]
    rigs = [body.rig(track.betas) for track in tracks]
    save_clip_glb(tmp_path / "walk_scene.glb", tracks, rigs, palette(2))
    file = SkinnedFile((tmp_path / "walk_scene.glb").read_bytes())
    assert file.node("photo_camera").camera == 0
    for track, rig in zip(tracks, rigs, strict=True):
        name = f"person_{track.track}"
        extras = file.node(name).extras
        all_meshes = rig.posed(track.rotmat)
        distances = 1000 * np.linalg.norm(all_meshes - track.vertices, axis=-1)
        assert extras["mean_distance_mm"] == pytest.approx(distances.mean(), abs=1e-3)
        assert extras["largest_distance_mm"] == pytest.approx(distances.max(), abs=1e-3)
        assert 0.01 < extras["mean_distance_mm"] < 1 < extras["largest_distance_mm"] < 50, extras
        frame = len(track.times) - 1
        found = file.skinned(name, track.times[frame], every=40)
        expected = ((track.vertices[frame] + track.translation[frame]) * [1, -1, -1])[::40]
        away = 1000 * np.linalg.norm(found - expected, axis=1)
        assert away.max() < extras["largest_distance_mm"] + 0.01, (name, away.max(), extras)
        assert away.mean() < 2 * extras["mean_distance_mm"], (name, away.mean(), extras)
        assert away.max() > 0.1 and extras["left_out"] == "pose correctives"


def test_weights_beyond_four_are_said_to_be_left_out(track, tiny_body, tmp_path):
    """All 24 joints move each vertex of this body."""
    save_clip_glb(tmp_path / "a.glb", [track], [tiny_body.rig(BETAS)], palette(1))
    extras = SkinnedFile((tmp_path / "a.glb").read_bytes()).node("person_2").extras
    assert extras["left_out"].endswith("weights beyond four joints a vertex"), extras
    distances = np.linalg.norm(tiny_body.rig(BETAS).posed(track.rotmat) - track.vertices, axis=-1)
    assert extras["largest_distance_mm"] == pytest.approx(1000 * distances.max(), rel=1e-3)
