import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import trimesh

from smpler import __version__
from smpler.models.body import open_body
from smpler.utils.camera import project_pinhole
from smpler.utils.drawing import overlay
from smpler.utils.drawing.overlay import draw_bodies
from smpler.utils.drawing.visualize import palette
from smpler.utils.export import (
    CAMERA_TO_Y_UP,
    MESH_FIELDS,
    NOT_WRITTEN,
    PersonResult,
    place_person,
    save_json,
    save_mesh,
    save_npz,
    save_people,
    save_scene,
)
from smpler.utils.image import read_image
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.paths import ROOT
from tests.support.results import made_person
from tests.utils.files.test_meshes import content_of, linear_to_srgb
from tests.utils.files.test_skinned import SkinnedFile
from tests.utils.test_rig import BETAS, pose_by_layer, some_pose

KEYS = [field.name for field in fields(PersonResult) if field.name not in NOT_WRITTEN]


@pytest.fixture
def person() -> PersonResult:
    """As a model gives it, of a triangle."""
    return made_person()


def as_the_body(person: PersonResult, number: int, place: tuple) -> PersonResult:
    """A person of the open body's rest pose, upright before the camera."""
    body = open_body()
    vertices = body.v_template * CAMERA_TO_Y_UP.astype(np.float32)  # y up, forward: to the camera
    changes = {"person": number, "translation": np.array(place), "vertices": vertices}
    return replace(person, **changes, faces=body.faces)


def test_npz_and_json_hold_the_same_keys_and_numbers(person, tmp_path):
    save_npz(tmp_path / "p.npz", person)
    save_json(tmp_path / "p.json", person, mesh=True)
    arrays = np.load(tmp_path / "p.npz", allow_pickle=False)
    content = json.loads((tmp_path / "p.json").read_text())
    assert set(arrays.files) == set(content) == set(KEYS)
    for key in arrays.files:
        if arrays[key].dtype.kind in "fiu":
            error = np.abs(arrays[key] - np.array(content[key])).max()
            assert error < 1e-6, (key, error)
        else:
            assert arrays[key].tolist() == content[key], key


def test_json_leaves_out_the_mesh_and_nothing_else(person, tmp_path):
    """Without it the file of the open body is a hundred times smaller."""
    someone = as_the_body(person, 0, (0.0, 0.0, 3.0))
    for name, choice in (("whole", {"mesh": True}), ("small", {})):
        save_json(tmp_path / f"{name}.json", someone, **choice)
    whole, small = (tmp_path / f"{name}.json" for name in ("whole", "small"))
    assert small.stat().st_size < min(12_000, whole.stat().st_size / 100), small.stat().st_size
    content = json.loads(whole.read_text())
    rest = {key: value for key, value in content.items() if key not in ("vertices", "faces")}
    assert json.loads(small.read_text()) == rest and len(rest) == len(content) - 2
    save_npz(tmp_path / "p.npz", someone)
    assert set(np.load(tmp_path / "p.npz").files) == set(content), "the npz keeps the mesh"


def test_people_are_saved_with_or_without_the_mesh_in_json(person, tmp_path):
    photo = np.zeros((480, 640, 3), np.uint8)
    for mesh in (False, True):
        person.save(tmp_path, "alone", json_mesh=mesh)
        save_people([person], photo, tmp_path, "all", json_mesh=mesh)
        for name in ("alone_0.json", "all_0.json"):
            content = json.loads((tmp_path / name).read_text())
            assert (set(MESH_FIELDS) <= content.keys()) == mesh, (name, mesh)


def test_the_docs_list_exactly_the_keys(person):
    page = (ROOT / "docs" / "output.md").read_text()
    section = page.split("<!-- schema -->")[1]
    keys = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert keys == KEYS


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_meshes_stand_upright_and_face_the_viewer(suffix, person, tmp_path):
    save_mesh(tmp_path / f"p.{suffix}", person)
    mesh = trimesh.load(tmp_path / f"p.{suffix}", force="mesh", process=False)
    # right stays right, up in the photo becomes +y, towards the camera becomes +z
    expected = [[0.5, 0, 0], [0, 0.7, 0], [0, 0, 0.3]]
    error = np.abs(np.asarray(mesh.vertices) - expected).max()
    assert error < 1e-6, mesh.vertices
    assert mesh.faces.tolist() == [[0, 1, 2]]


def test_what_is_missing_is_absent_not_empty(person, tmp_path):
    names = ["keypoints_3d", "keypoints_2d", "fit_residual", "joints_std"]
    bare = replace(person, **dict.fromkeys(names))
    save_npz(tmp_path / "p.npz", bare)
    save_json(tmp_path / "p.json", bare)
    assert not set(names) & set(np.load(tmp_path / "p.npz").files)
    assert not set(names) & json.loads((tmp_path / "p.json").read_text()).keys()


def test_version_is_the_projects():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_glb_holds_outward_unit_normals_and_the_persons_name_and_colour(person, tmp_path):
    sphere = trimesh.creation.icosphere(2)
    turned = replace(person, vertices=sphere.vertices * [1.0, -1.0, -1.0], faces=sphere.faces)
    color = palette(3)[2]
    save_mesh(tmp_path / "p.glb", replace(turned, person=2), color)
    scene = trimesh.load_scene(tmp_path / "p.glb", process=False)
    assert list(scene.graph.nodes_geometry) == ["person_2"]
    mesh = scene.to_mesh()
    error = np.abs(np.asarray(mesh.vertex_normals) - sphere.vertices).max()
    assert error < 0.02, error  # a sphere's normals are its points
    assert mesh.volume == pytest.approx(sphere.volume, rel=1e-5)  # not inside out
    found = linear_to_srgb(mesh.visual.material.baseColorFactor[:3] / 255)
    assert np.abs(found - color).max() < 0.01, (found, color)  # trimesh keeps 8 bits


PLACES = [(-0.4, 0.3, 3.0), (0.5, 0.25, 4.0), (0.2, -0.1, 6.0)]


def test_a_scene_holds_everybody_where_the_overlay_shows_them(person, tmp_path):
    """Each person's node, put before the photo's camera, gives the pixels of the overlay."""
    people = [as_the_body(person, number, place) for number, place in enumerate(PLACES)]
    photo = np.zeros((480, 640, 3), np.uint8)
    save_people(people, photo, tmp_path, "a")
    scene = trimesh.load_scene(tmp_path / "a_scene.glb", process=False)
    assert set(scene.graph.nodes_geometry) == {"person_0", "person_1", "person_2"}
    for number, (place, color) in enumerate(zip(PLACES, palette(3), strict=True)):
        matrix, name = scene.graph[f"person_{number}"]
        mesh = scene.geometry[name]
        error = np.abs(matrix[:3, 3] - place * CAMERA_TO_Y_UP).max()
        assert error < 1e-6 and np.array_equal(matrix[:3, :3], np.eye(3)), matrix
        found = linear_to_srgb(mesh.visual.material.baseColorFactor[:3] / 255)
        assert np.abs(found - color).max() < 0.01, (found, color)
        world = trimesh.transform_points(mesh.vertices, matrix) * CAMERA_TO_Y_UP
        pixels = project_pinhole(world, person.focal_length, person.principal_point)
        drawn = (read_image(tmp_path / f"a_{number}_overlay.png") > 0).any(axis=-1)
        inside = (pixels >= 0).all(axis=1) & (pixels < (640, 480)).all(axis=1)
        columns, rows = np.floor(pixels[inside]).astype(int).T
        assert inside.mean() > 0.7 and drawn[rows, columns].mean() > 0.98, name
        corners = np.argwhere(drawn)[:, ::-1]
        edges = np.clip(pixels.min(axis=0), 0, None), np.clip(pixels.max(axis=0), 0, (640, 480))
        error = np.abs([corners.min(axis=0) - edges[0], corners.max(axis=0) + 1 - edges[1]]).max()
        assert error <= 1.5, f"{name}: {error:.2f} px"


def test_the_scenes_camera_sees_the_photo(person, tmp_path):
    """By the glTF specification's projection matrix, at the origin, along -z, y up."""
    save_scene(tmp_path / "s.glb", [person], palette(1))
    content, _ = content_of((tmp_path / "s.glb").read_bytes())
    (node,) = [node for node in content["nodes"] if "camera" in node]
    assert node["name"] == "photo_camera" and not {"matrix", "rotation", "translation"} & set(node)
    assert content["nodes"].index(node) in content["scenes"][0]["nodes"]
    lens = content["cameras"][node["camera"]]["perspective"]
    y_scale = 1 / np.tan(lens["yfov"] / 2)
    world = (person.vertices + person.translation) * CAMERA_TO_Y_UP
    x = world[:, 0] * y_scale / lens["aspectRatio"] / -world[:, 2]  # [-1, 1] from edge to edge
    y = world[:, 1] * y_scale / -world[:, 2]
    seen = np.stack([(1 + x) / 2 * 640, (1 - y) / 2 * 480], axis=1)
    expected = project_pinhole(
        person.vertices + person.translation, person.focal_length, person.principal_point
    )
    error = np.abs(seen - expected).max()
    assert error < 1e-6, error


def test_the_overlay_of_a_person_is_by_the_full_image_camera(person):
    """A person stays where `joints_2d` are, whatever the crop camera says."""
    photo = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_bodies(photo, [place_person(person)])
    other = replace(person, cam=person.cam + 1, crop=person.crop + 7)
    assert drawn.any() and np.array_equal(drawn, draw_bodies(photo, [place_person(other)]))
    middle = (person.vertices + person.translation).mean(axis=0)
    x, y = project_pinhole(middle, person.focal_length, person.principal_point).astype(int)
    assert drawn[y, x].any(), (x, y)


def test_a_large_photo_gives_the_pictures_of_a_small_one(person, tmp_path, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    drawn = replace(person, translation=np.array([-0.3, 0.2, 2.5]))
    other = replace(drawn, person=1, translation=np.array([0.113, 0.307, 2.41]))
    for people in ([drawn], [drawn, other]):
        save_people(people, photo, tmp_path / "whole", "a")
        monkeypatch.setattr(overlay, "MAX_WHOLE", 0)
        monkeypatch.setattr(overlay, "STRIP_PIXELS", 640 * 50)
        save_people(people, photo, tmp_path / "strips", "a")
        monkeypatch.undo()
        for path in (tmp_path / "whole").glob("a*.png"):
            whole, strips = (read_image(tmp_path / x / path.name) for x in ("whole", "strips"))
            assert whole.shape == strips.shape
            assert (whole != strips).any(axis=-1).sum() <= 5, path.name
    assert (read_image(tmp_path / "whole" / "a_0_overlay.png") != photo).any()


def test_saving_nobody_is_the_callers_mistake(tmp_path):
    with pytest.raises(AssertionError, match="nobody to save"):
        save_people([], np.zeros((9, 9, 3), np.uint8), tmp_path, "a")
    assert not list(tmp_path.iterdir())


def test_a_person_with_a_rig_is_written_with_a_skeleton_in_their_pose(person, tmp_path):
    """Skinning by the file gives the mesh of the npz; keys and obj stay as they are."""
    body, rotmat = open_body(), some_pose(1)
    vertices, _ = pose_by_layer(body, rotmat, BETAS)
    changes = {"vertices": vertices[0], "faces": body.faces, "rotmat": rotmat[0], "betas": BETAS}
    place = np.array([0.3, -0.2, 4.0])
    posed = replace(person, **changes, translation=place, rig=body.rig(BETAS, detail=False))
    posed.save(tmp_path, "a")
    save_scene(tmp_path / "a_scene.glb", [posed, replace(posed, person=1)], palette(2))
    assert set(np.load(tmp_path / "a_0.npz").files) == set(KEYS)
    alone = SkinnedFile((tmp_path / "a_0.glb").read_bytes())
    scene = SkinnedFile((tmp_path / "a_scene.glb").read_bytes())
    for file, name, there in ((alone, "person_0", 0 * place), (scene, "person_1", place)):
        expected = ((vertices[0] + there) * CAMERA_TO_Y_UP)[::40]
        error = np.abs(file.skinned(name, every=40) - expected).max()
        assert error < 1e-5, (name, error)
    assert scene.node("photo_camera").camera == 0
    names = [alone.nodes[joint].name for joint in alone.gltf.skins[0].joints]
    assert tuple(names) == SMPL_NAMES
    corners = trimesh.load(tmp_path / "a_0.obj", process=False, maintain_order=True).vertices
    assert np.abs(corners - vertices[0] * CAMERA_TO_Y_UP).max() < 1e-5


def test_people_of_an_earlier_run_do_not_stay_beside_new_ones(person, tmp_path):
    photo = np.full((48, 64, 3), 40, np.uint8)
    save_people([replace(person, person=n) for n in range(3)], photo, tmp_path, "a")
    other = replace(person, image="b.jpg")
    save_npz(tmp_path / "a_3.npz", other)  # of another photo
    (tmp_path / "a_notes.txt").write_text("mine")
    save_people([person], photo, tmp_path, "a")
    kept = {"a_3.npz", "a_notes.txt"}
    endings = ("_0.npz", "_0.json", "_0.obj", "_0.glb", "_0_side.png", "_0_overlay.png")
    expected = {"a_out.png", "a_scene.glb", *(f"a{ending}" for ending in endings)}
    assert {path.name for path in tmp_path.iterdir()} == kept | expected
