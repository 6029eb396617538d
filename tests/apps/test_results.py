import zipfile

import numpy as np
import pytest
import torch

from smpler.apps import results
from smpler.apps.pictures import find_pictures
from smpler.apps.results import Bodies, find_results, read_person
from smpler.models.smpl import SMPL
from smpler.utils.image import write_image
from tests.support.results import DISTANCE, person_arrays, save, track_arrays

FRAMES = np.arange(3, 9, 2)


@pytest.fixture
def layer(tiny_body) -> SMPL:
    return SMPL(tiny_body).eval()


def test_a_photos_person_stands_where_vertices_and_translation_say(tmp_path):
    arrays = person_arrays()
    person = read_person(save(tmp_path / "photo_0.npz", arrays))
    mesh = Bodies().mesh(person, 0)
    assert np.allclose(mesh, arrays["vertices"] + arrays["translation"], atol=1e-6)
    assert np.allclose(person.joints[0], arrays["joints_3d"] + arrays["translation"], atol=1e-6)
    assert (person.name, person.media, person.moment(0.0)) == ("person 0", "photo.png", 0)


def test_a_tracks_meshes_are_posed_anew_and_equal_those_that_are_stored(
    layer, tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "open_body", lambda: layer.body)
    arrays = track_arrays(layer, FRAMES)
    rotmat, betas = torch.from_numpy(arrays["rotmat"]), torch.zeros(len(FRAMES), 10)
    vertices = layer(rotmat, betas).vertices.numpy()
    stored = arrays | {"vertices": vertices, "faces": layer.body.faces}
    people = [
        read_person(save(tmp_path / f"{name}.npz", content))
        for name, content in (("posed", arrays), ("stored", stored))
    ]
    for moment in range(len(FRAMES)):
        posed, kept = (Bodies().mesh(person, moment) for person in people)
        assert np.abs(posed - kept).max() < 1e-5, moment
    assert abs(posed[:, 2].mean() - DISTANCE) < 1
    assert [people[0].moment(time) for time in (0.3, 0.4, 0.7)] == [0, None, 2]


def test_a_tracks_body_is_found_by_its_hash_or_the_next_step_is_named(layer, tmp_path):
    person = read_person(save(tmp_path / "clip_track1.npz", track_arrays(layer, FRAMES)))
    with pytest.raises(ValueError, match="body 'tiny', which is not here; give its file with --bo"):
        Bodies().layer(person)
    body = layer.body
    file = save(
        tmp_path / "tiny.npz",
        {"f": body.faces, "weights": body.lbs_weights}
        | {name: getattr(body, name) for name in ("v_template", "shapedirs", "posedirs")}
        | {"J_regressor": body.J_regressor},
    )
    assert Bodies(file).layer(person).body.sha256 == body.sha256
    other = read_person(
        save(tmp_path / "b_track1.npz", track_arrays(layer, FRAMES) | {"body_sha256": "0"})
    )
    with pytest.raises(ValueError, match=r"is not that of --body .*tiny\.npz"):
        Bodies(file).layer(other)


WRONG = {
    "no schema": ({"schema": None}, "it has no schema, but smpler-person/2 or smpler-track/1"),
    "schema": ({"schema": "other/1"}, "its schema is 'other/1'"),
    "no key": ({"vertices": None}, "it has no 'vertices'"),
    "shape": ({"joints_3d": np.zeros((23, 3))}, "its 'joints_3d' is float64 of shape"),
    "lengths": ({"vertices": np.zeros((0, 3))}, "its arrays have 0 entries"),
    "type": ({"vertices": np.zeros((20, 3), complex)}, "array of complex128 is neither numbers"),
    "nan": ({"translation": np.array([0, 0, np.nan])}, "its 'translation' holds numbers that are"),
    "huge": ({"vertices": np.full((20, 3), 1e30)}, "its 'vertices' holds numbers that are"),
    "faces": ({"faces": np.full((3, 3), 20)}, "its 'faces' name vertices that are not there"),
    "size": ({"image_size": np.array([0, 30])}, r"its picture's size is \[0, 30\]"),
    "lens": ({"focal_length": np.asarray(0.0)}, "its focal length is 0.0"),
    "text": ({"image": np.asarray("x" * 2000)}, "its 'image' is no short text"),
    "pickle": ({"person": np.array(None)}, "cannot be shown"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_foreign_file_is_refused_in_one_sentence(name, tmp_path):
    changes, said = WRONG[name]
    arrays = person_arrays() | changes
    path = save(tmp_path / "x.npz", {key: x for key, x in arrays.items() if x is not None})
    with pytest.raises(ValueError, match=said) as error:
        read_person(path)
    assert "\n" not in str(error.value) and "x.npz" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{"times": np.array([0.0, 0.2, 0.1])}, {"frames": np.array([5, 4, 6])}, {"is_seen": FRAMES}],
)
def test_a_track_out_of_order_is_refused(changes, layer, tmp_path):
    path = save(tmp_path / "x_track1.npz", track_arrays(layer, FRAMES) | changes)
    with pytest.raises(ValueError, match="do not rise|'is_seen' is int64"):
        read_person(path)


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    whole = save(tmp_path / "whole.npz", person_arrays()).read_bytes()
    rng = np.random.default_rng(0)
    contents = [b"", b"text", whole[:300], whole[: len(whole) // 2]]
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            damaged[place] = rng.integers(256)
        contents.append(bytes(damaged))
    refused = 0
    for content in contents:
        (tmp_path / "x.npz").write_bytes(content)
        try:
            read_person(tmp_path / "x.npz")
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and "x.npz" in str(error), error
    assert refused > 50, refused


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("smpler.utils.files.arrays.MAX_BYTES", 10_000)
    path = save(tmp_path / "x.npz", person_arrays() | {"vertices": np.zeros((5000, 3))})
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="its arrays take more than 0 GiB"):
        read_person(path)


def test_files_folders_and_stems_give_each_result_once(layer, tmp_path):
    for name in ("photo_0", "photo_1", "photo_10_side", "photo_a_0"):
        save(tmp_path / f"{name}.npz", person_arrays(seed=len(name) % 2))
    save(tmp_path / "photo_track2.npz", track_arrays(layer, FRAMES))
    np.savez(tmp_path / "other.npz", a=1)
    with zipfile.ZipFile(tmp_path / "zip.npz", "w"):
        pass
    both = find_results([tmp_path / "photo", tmp_path / "photo_1.npz"])
    assert [person.path.name for person in both] == [
        "photo_0.npz",
        "photo_1.npz",
        "photo_track2.npz",
    ]
    assert len(find_results([tmp_path, tmp_path / "photo"])) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no results, such as NAME_0.npz"):
        find_results([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="nothing is missing; give a result such as outp"):
        find_results([tmp_path / "nothing"])


def test_the_photo_is_found_nearby_by_name_and_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    person = read_person(save(tmp_path / "outputs" / "photo_0.npz", person_arrays()))
    assert find_pictures(person) is None
    other = np.zeros((30, 41, 3), np.uint8)
    write_image(tmp_path / "outputs" / "photo.png", other)
    write_image(tmp_path / "photo.png", other[:, 1:] + 7)
    found = find_pictures(person)
    assert found is not None and (found.at(0) == 7).all()
    with pytest.raises(ValueError, match="has 41 x 30 pixels, but the result is of 40 x 30 pixels"):
        find_pictures(person, tmp_path / "outputs" / "photo.png")
    with pytest.raises(FileNotFoundError, match="no.png is missing"):
        find_pictures(person, tmp_path / "no.png")
