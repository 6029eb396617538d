import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import trimesh

from smpler import __version__
from smpler.utils import export
from smpler.utils.export import PersonResult, save_json, save_mesh, save_npz
from smpler.utils.image import read_image
from smpler.utils.paths import ROOT


@pytest.fixture
def person() -> PersonResult:
    """A triangle whose corners tell the axes apart: right, up and near in the camera's frame."""
    rng = np.random.default_rng(0)
    return PersonResult(
        schema="smpler-person/1",
        version="0",
        image="a.jpg",
        image_size=np.array([640, 480]),
        person=0,
        box=np.array([1.0, 2.0, 3.0, 4.0]),
        box_source="given",
        box_score=1.0,
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
        principal_point=np.array([320.0, 240.0]),
        translation=np.array([0.0, 0.0, 5.0]),
        vertices=np.array([[0.5, 0.0, 0.0], [0.0, -0.7, 0.0], [0.0, 0.0, -0.3]]),
        faces=np.array([[0, 1, 2]]),
        joints_3d=rng.normal(size=(24, 3)),
        joints_2d=rng.normal(size=(24, 2)),
        joint_names=("a",) * 24,
        keypoints_3d=rng.normal(size=(14, 3)),
        keypoints_2d=rng.normal(size=(14, 2)),
        keypoint_names=("b",) * 14,
    )


def test_npz_and_json_hold_the_same_keys_and_numbers(person, tmp_path):
    save_npz(tmp_path / "p.npz", person)
    save_json(tmp_path / "p.json", person)
    arrays = np.load(tmp_path / "p.npz", allow_pickle=False)
    content = json.loads((tmp_path / "p.json").read_text())
    assert set(arrays.files) == set(content) == {field.name for field in fields(PersonResult)}
    for key in arrays.files:
        if arrays[key].dtype.kind in "fiu":
            error = np.abs(arrays[key] - np.array(content[key])).max()
            assert error < 1e-6, (key, error)
        else:
            assert arrays[key].tolist() == content[key], key


def test_the_docs_list_exactly_the_keys(person):
    page = (ROOT / "docs" / "output.md").read_text()
    section = page.split("<!-- schema -->")[1]
    keys = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert keys == [field.name for field in fields(PersonResult)]


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_meshes_stand_upright_and_face_the_viewer(suffix, person, tmp_path):
    save_mesh(tmp_path / f"p.{suffix}", person)
    mesh = trimesh.load(tmp_path / f"p.{suffix}", force="mesh", process=False)
    # right stays right, up in the photo becomes +y, towards the camera becomes +z
    expected = [[0.5, 0, 0], [0, 0.7, 0], [0, 0, 0.3]]
    error = np.abs(np.asarray(mesh.vertices) - expected).max()
    assert error < 1e-6, mesh.vertices
    assert mesh.faces.tolist() == [[0, 1, 2]]


def test_missing_keypoints_are_absent_not_empty(person, tmp_path):
    bare = replace(person, keypoints_3d=None, keypoints_2d=None)
    save_npz(tmp_path / "p.npz", bare)
    assert "keypoints_3d" not in np.load(tmp_path / "p.npz").files


def test_version_is_the_projects():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_glb_holds_outward_unit_normals_and_the_material(person, tmp_path):
    sphere = trimesh.creation.icosphere(2)
    turned = replace(person, vertices=sphere.vertices * [1.0, -1.0, -1.0], faces=sphere.faces)
    save_mesh(tmp_path / "p.glb", turned)
    mesh = trimesh.load(tmp_path / "p.glb", force="mesh", process=False)
    error = np.abs(np.asarray(mesh.vertex_normals) - sphere.vertices).max()
    assert error < 0.02, error  # a sphere's normals are its points
    assert mesh.volume == pytest.approx(sphere.volume, rel=1e-5)  # not inside out
    assert mesh.visual.material.baseColorFactor.tolist() == [237, 173, 158, 255]


def test_a_large_photo_gives_the_pictures_of_a_small_one(person, tmp_path, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    drawn = replace(person, crop=np.array([100, 50, 400, 400]))
    other = replace(drawn, person=1, crop=np.array([250, 20, 300, 300]))
    for people in ([drawn], [drawn, other]):
        export.save_people(people, photo, tmp_path / "whole", "a")
        monkeypatch.setattr(export, "MAX_WHOLE", 0)
        monkeypatch.setattr(export, "STRIP_PIXELS", 640 * 50)
        export.save_people(people, photo, tmp_path / "strips", "a")
        monkeypatch.undo()
        for path in (tmp_path / "whole").glob("a*.png"):
            whole, strips = (read_image(tmp_path / x / path.name) for x in ("whole", "strips"))
            assert whole.shape == strips.shape
            assert (whole != strips).any(axis=-1).sum() <= 5, path.name
    assert (read_image(tmp_path / "whole" / "a_0_overlay.png") != photo).any()
