import math
import sys

import numpy as np
import pytest

from smpler import command
from smpler.apps.results import Bodies, Person, read_person
from smpler.apps.scene import FREE, MARGIN, Scene, camera_of, unique
from smpler.apps.view import scenes_of
from smpler.models.smpl import SMPL
from tests.support.results import person_arrays, save, track_arrays


def run(*arguments) -> int:
    return command.main(["view", *(str(argument) for argument in arguments)])


@pytest.fixture
def person(tmp_path) -> Person:
    return read_person(save(tmp_path / "photo_0.npz", person_arrays()))


def test_without_viser_view_names_the_package_to_install(person, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert run(person.path) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "`pip install viser`" in error and "`pip install '.[view]'`" in error, error


def test_a_foreign_file_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "x.npz").write_text("no result")
    for path in (tmp_path / "x.npz", tmp_path / "missing.npz", tmp_path):
        assert run(path) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("Error: ") and error.endswith("."), error


def test_a_host_or_port_that_cannot_be_had_is_one_sentence(person, capsys):
    pytest.importorskip("viser")
    assert run(person.path, "--host", "203.0.113.1") == 2
    assert "--host 203.0.113.1 is no address of this computer" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(person.path, "--port", "70000")


def test_one_photo_cannot_be_that_of_several_results(person, tmp_path, capsys):
    other = person_arrays() | {"image": np.asarray("b.png")}
    save(tmp_path / "b_0.npz", other)
    assert run(tmp_path, "--photo", tmp_path / "photo.png") == 2
    assert "is one photo, but the results are of 2; give the results of one." in (
        capsys.readouterr().err
    )


def test_people_of_one_photo_share_a_scene(person, tmp_path):
    second = read_person(save(tmp_path / "photo_1.npz", person_arrays(seed=1)))
    (scene,) = scenes_of([person, second], None, None)
    assert scene.people == [person, second] and scene.moments == [(0.0, 0)]


def test_the_time_line_holds_every_moment_of_every_track_once(tiny_body, tmp_path):
    layer = SMPL(tiny_body)
    parts = (np.arange(0, 6, 2), np.arange(4, 10, 2))
    people = [
        read_person(save(tmp_path / f"c_track{n}.npz", track_arrays(layer, frames, n)))
        for n, frames in enumerate(parts, start=1)
    ]
    scene = Scene(people, None, Bodies())
    assert scene.moments == [(0.0, 0), (0.2, 2), (0.4, 4), (0.6, 6), (0.8, 8)]


@pytest.mark.parametrize("aspect", [0.5, 40 / 30, 3.0])
def test_the_front_view_is_the_photos_camera_and_shows_the_whole_photo(aspect, person):
    camera = camera_of("Front", Scene([person], None, Bodies()), aspect)
    assert (camera.position == 0).all() and (camera.look_at[:2] == 0).all()
    half = math.tan(camera.fov / 2) * person.focal_length  # pixels of the photo
    assert half >= 15 * MARGIN - 1e-9 and half * aspect >= 20 * MARGIN - 1e-9
    assert min(half / 15, half * aspect / 20) == pytest.approx(MARGIN)


@pytest.mark.parametrize("view", ["Side", "Top"])
@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.5])
def test_the_other_views_show_every_joint_beside_the_panel(view, aspect, person):
    camera = camera_of(view, Scene([person], None, Bodies()), aspect)
    away = camera.look_at - camera.position
    away /= np.linalg.norm(away)
    right = np.cross(away, camera.up)
    assert abs(away @ camera.up) < 1e-9
    points = person.joints[0] - camera.position
    depth = points @ away
    half = math.tan(camera.fov / 2) * depth
    assert (depth > 0).all()
    assert (np.abs(points @ camera.up) < half).all()
    assert (np.abs(points @ right + (1 - FREE) * half * aspect) < FREE * half * aspect).all()


def test_titles_that_stand_twice_get_numbers():
    assert unique(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]
