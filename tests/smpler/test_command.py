import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import trimesh

from smpler import command, stills
from smpler.models import predictor
from smpler.models.predictor import Predictor
from smpler.models.weights import checkpoint
from smpler.models.weights.checkpoint import load_model, released_weights
from smpler.utils.image import CropWindow, read_image
from smpler.utils.paths import ROOT, SAMPLES
from tests.support import standin
from tests.utils.files.test_skinned import SkinnedFile


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The demo, run as a user runs it, on one sample photo."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "demo.py", "--img_path", "samples/im01.png", "--out_dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out, done


def test_every_promised_file_is_written(results):
    out, _ = results
    promised = {"im01_out.png", "im01_scene.glb", "im01_0_overlay.png", "im01_0_side.png"}
    promised |= {f"im01_0.{suffix}" for suffix in ("npz", "json", "obj", "glb")}
    assert {path.name for path in out.iterdir()} == promised


def test_it_runs_on_the_shipped_weights_and_names_them(results):
    out, done = results
    assert "No trained weights" not in done.stderr, done.stderr
    person = np.load(out / "im01_0.npz")
    assert str(person["weights"]) == released_weights().name


def test_without_weights_it_stops_with_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(checkpoint, "RELEASED_FILES", {})
    assert run("--device", "cpu", "--out_dir", tmp_path) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: There are no open weights"), error


def test_init_gives_untrained_parameters(monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(stills, "save_people", lambda people, *_: written.extend(people) or ROOT)
    box = ("--bbox", "100,50,200,400")
    assert run("--checkpoint", "init", *box, "--device", "cpu", "--out_dir", tmp_path) == 0
    assert [person.weights for person in written] == ["initial parameters"]


def test_pictures_have_the_photos_size_and_show_a_body(results):
    out, _ = results
    photo = read_image(SAMPLES / "im01.png")
    overlay = read_image(out / "im01_0_overlay.png")
    both = read_image(out / "im01_out.png")
    assert overlay.shape == photo.shape
    assert both.shape == (photo.shape[0], 2 * photo.shape[1], 3)
    assert np.array_equal(both[:, : photo.shape[1]], photo)
    covered = (overlay != photo).any(axis=-1).mean()
    assert 0.02 < covered < 0.6, covered


def test_numbers_agree_with_each_other(results):
    person = np.load(results[0] / "im01_0.npz")
    placed = person["joints_3d"] + person["translation"]
    pinhole = person["focal_length"] * placed[:, :2] / placed[:, 2:] + person["principal_point"]
    error = np.abs(pinhole - person["joints_2d"]).max()
    assert error < 1e-3, error
    # the crop camera sees the root where the full-image camera does
    window = CropWindow(*person["crop"].tolist())
    scale, *shift = person["cam"]
    root = window.to_photo(scale * (person["joints_3d"][:1, :2] + shift))
    error = np.abs(root - pinhole[:1]).max()
    assert error < 0.01, error


def test_the_line_says_who_was_found_and_how_well(results):
    line = results[1].stdout.strip()
    assert re.fullmatch(
        r"samples/im01.png: 1 person, quality 0\.\d\d, focal length 801 px \(diagonal\) -> .*", line
    ), line


def test_body_stands_upright_in_photo_and_mesh(results):
    person = np.load(results[0] / "im01_0.npz")
    names = person["joint_names"].tolist()
    head, foot = names.index("Head"), names.index("L_Foot")
    assert person["joints_2d"][head, 1] < person["joints_2d"][foot, 1] - 100
    mesh = trimesh.load(results[0] / "im01_0.obj", force="mesh", process=False)
    assert len(mesh.vertices) == len(person["vertices"])
    assert mesh.volume > 0.04, f"{mesh.volume} m^3: inside out or flat"
    assert 1.4 < np.ptp(mesh.vertices[:, 1]) < 2.0
    skinned = SkinnedFile((results[0] / "im01_0.glb").read_bytes()).skinned("person_0", every=40)
    assert np.abs(skinned - (person["vertices"] * [1, -1, -1])[::40]).max() < 1e-5


def test_json_is_the_npz(results):
    content = json.loads((results[0] / "im01_0.json").read_text())
    person = np.load(results[0] / "im01_0.npz")
    assert set(content) == set(person.files) - {"vertices", "faces"}
    assert (results[0] / "im01_0.json").stat().st_size < 10_000
    assert content["weights"] == released_weights().name and content["body"] == "open"


def run(*arguments) -> int:
    return command.demo([str(argument) for argument in arguments])


@pytest.fixture
def quick(monkeypatch):
    """Do not build the same model for each test."""
    model = _model()
    monkeypatch.setattr(predictor, "load_model", lambda *_, **__: model)


_MODELS = []


def _model():
    if not _MODELS:
        torch.manual_seed(0)
        _MODELS.append(load_model("smpler-backbone", "init"))
    return _MODELS[0]


def test_published_checkpoint_needs_nothing_else(standin_arrays, tmp_path, capsys):
    state = standin.published_state_dict("backbone", "w32")
    state |= standin.published_body(standin_arrays, standin.keypoint_regressor("h36m"))
    torch.save({"model": state}, tmp_path / "SMPLer_h36m.pt")
    photo = SAMPLES / "im01.png"
    arguments = ("--img_path", photo, "--checkpoint", tmp_path / "SMPLer_h36m.pt")
    assert run(*arguments, "--out_dir", tmp_path / "out", "--device", "cpu") == 0
    person = np.load(tmp_path / "out" / "im01_0.npz")
    assert str(person["body"]) == "checkpoint" and str(person["weights"]) == "SMPLer_h36m.pt"
    assert person["vertices"].shape == (6890, 3)
    assert len(str(person["weights_sha256"])) == 64


def test_odd_photos_all_work(quick, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    colour = PIL.Image.fromarray(read_image(SAMPLES / "im01.png")).resize((200, 220))
    colour.convert("L").save(photos / "grey.png")
    colour.convert("RGBA").save(photos / "rgba.png")
    colour.convert("P").save(photos / "palette.gif")
    colour.convert("CMYK").save(photos / "cmyk.jpg")
    colour.save(photos / "webp.webp")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    colour.save(photos / "turned.JPG", format="JPEG", exif=exif)
    sixteen = np.asarray(colour).astype(np.uint16) * 257
    cv2.imwrite(str(photos / "sixteen.tiff"), sixteen)
    PIL.Image.new("RGB", (1, 1), "red").save(photos / "tiny.png")
    PIL.Image.new("RGB", (2000, 3), "red").save(photos / "flat.bmp")
    assert run("--img_path", photos, "--out_dir", tmp_path / "out", "--device", "cpu") == 0
    written = {path.name for path in (tmp_path / "out").glob("*_out.png")}
    nobody = {"tiny", "flat"}
    assert written == {
        f"{path.stem}_out.png" for path in photos.iterdir() if path.stem not in nobody
    }
    assert read_image(tmp_path / "out" / "turned_0_overlay.png").shape == (200, 220, 3)


@pytest.mark.slow
def test_a_very_large_photo_works(quick, tmp_path):
    PIL.Image.new("RGB", (8000, 6000), "grey").save(tmp_path / "large.jpg")
    arguments = ("--img_path", tmp_path / "large.jpg", "--out_dir", tmp_path / "out")
    assert run(*arguments, "--bbox=3000,500,2000,5000", "--device", "cpu") == 0
    header = PIL.Image.open(tmp_path / "out" / "large_out.png")
    assert header.size == (16000, 6000)


def test_broken_photos_are_named_and_the_others_done(quick, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = (SAMPLES / "im01.png").read_bytes()
    (photos / "a_cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "b_empty.jpg").touch()
    (photos / "c_text.png").write_text("no image")
    (photos / "d_whole.png").write_bytes(whole)
    assert run("--img_path", photos, "--out_dir", tmp_path / "out", "--device", "cpu") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    names = ("a_cut", "b_empty", "c_text")
    assert all(name in line for name, line in zip(names, errors, strict=True)), errors
    assert (tmp_path / "out" / "d_whole_out.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--img_path", "nowhere.jpg"), "nowhere.jpg is missing"),
        (("--img_path", "tests/golden"), "holds no photo"),
        (("--checkpoint", "nowhere.pt"), "nowhere.pt is missing"),
        (("--checkpoint", "README.md"), "README.md is not a readable checkpoint"),
        (("--body", "nowhere.pkl"), "nowhere.pkl is missing"),
        (("--device", "toaster"), "toaster is no device"),
        (("--bbox", "5000,5000,10,10"), "does not fit im01.png"),
    ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    assert run("--device", "cpu", *arguments, "--out_dir", tmp_path) == 2
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and message in errors[0], printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("box", ["1,2,3", "1,2,-3,4", "a,b,c,d", "1,2,nan,4"])
def test_unusable_boxes_are_refused_by_the_parser(box, capsys):
    with pytest.raises(SystemExit) as caught:
        run(f"--bbox={box}")
    assert caught.value.code == 2
    assert repr(box) in capsys.readouterr().err


def test_without_a_gpu_the_cpu_does_it_and_says_so(quick, tmp_path, capsys):
    if torch.cuda.is_available():
        name = f"cuda:{torch.cuda.device_count()}"
    else:
        name = "cuda"
    arguments = ("--img_path", SAMPLES / "im01.png", "--out_dir", tmp_path)
    assert run(*arguments, "--device", name) == 0
    assert f"no GPU answers to {name}; the CPU does it" in capsys.readouterr().err


def test_given_boxes_decide_the_crops(quick, tmp_path):
    arguments = ("--img_path", SAMPLES / "im01.png", "--out_dir", tmp_path, "--device", "cpu")
    assert run(*arguments, "--bbox", "100,50,200,400", "--bbox=160,110,250,430") == 0
    first, second = (np.load(tmp_path / f"im01_{number}.npz") for number in (0, 1))
    assert first["crop"].tolist() == [-40, 10, 480, 480]
    assert second["box"].tolist() == [160, 110, 250, 430]
    assert {str(person["box_source"]) for person in (first, second)} == {"given"}


def test_nobody_is_0_people_with_a_note_and_no_files(quick, tmp_path, capsys):
    rows = np.linspace(90, 230, 300).astype(np.uint8)
    horizon = np.repeat(np.where(np.arange(300) < 180, rows, rows // 3)[:, None], 400, axis=1)
    for name, picture in (("white", np.full((200, 300), 255, np.uint8)), ("sea", horizon)):
        PIL.Image.fromarray(picture).save(tmp_path / f"{name}.png")
        out = tmp_path / name
        assert run(tmp_path / f"{name}.png", "--out_dir", out, "--device", "cpu") == 0
        printed = capsys.readouterr()
        assert printed.out.endswith(f"{name}.png: 0 people\n"), printed.out
        assert f"{name}.png: nobody was found; --bbox" in printed.err
        assert list(out.iterdir()) == []


def test_several_people_each_get_their_files_and_share_a_scene(quick, tmp_path, capsys):
    arguments = ("--img_path", SAMPLES / "im02.jpg", "--out_dir", tmp_path, "--device", "cpu")
    assert run(*arguments) == 0
    assert "im02.jpg: 2 people, quality 0" in capsys.readouterr().out
    people = [np.load(path) for path in sorted(tmp_path.glob("im02_?.npz"))]
    centers = [person["box"][:2] + person["box"][2:] / 2 for person in people]
    assert len(people) == 2 and np.linalg.norm(centers[0] - centers[1]) > 200, centers
    scene = trimesh.load(tmp_path / "im02_scene.glb")
    for number, person in enumerate(people):
        transform, _ = scene.graph[f"person_{number}_skeleton"]
        assert np.abs(transform[:3, 3] - person["translation"] * [1, -1, -1]).max() < 1e-4
    assert not (tmp_path / "im02_2.npz").exists()


def test_a_low_quality_is_said_and_so_is_who_was_not_fitted(capsys):
    people = [
        SimpleNamespace(person=n, quality=q, fit=f, focal_length=1000.2, focal_length_source="exif")
        for n, (q, f) in enumerate([(0.81, "applied"), (0.123, "refused"), (0.5, "no landmarks")])
    ]
    assert stills.summary(people) == (
        "3 people, quality 0.81, 0.12 (low), 0.50, focal length 1000 px (exif); not fitted: 1, 2"
    )
    assert stills.summary([]) == "0 people"


def test_the_json_holds_the_mesh_when_it_is_asked_for(quick, tmp_path):
    arguments = (SAMPLES / "im01.png", "--bbox=160,110,250,430", "--out_dir", tmp_path)
    assert run(*arguments, "--device", "cpu", "--json_mesh") == 0
    content = json.loads((tmp_path / "im01_0.json").read_text())
    person = np.load(tmp_path / "im01_0.npz")
    assert np.abs(np.array(content["vertices"]) - person["vertices"]).max() < 1e-5
    assert content["faces"] == person["faces"].tolist()


def test_photos_of_one_name_do_not_overwrite_each_other(quick, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for suffix in ("png", "jpg"):
        PIL.Image.new("RGB", (30, 20), "white").save(photos / f"a.{suffix}")
    arguments = ("--img_path", photos, "--out_dir", tmp_path / "out", "--device", "cpu")
    assert run(*arguments, "--bbox=1,1,9,9") == 0
    written = {path.name for path in (tmp_path / "out").glob("*_out.png")}
    assert written == {"a_png_out.png", "a_jpg_out.png"}


def test_photos_and_folders_are_given_in_any_number_and_each_is_done_once(quick, tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        PIL.Image.new("RGB", (30, 20), "white").save(tmp_path / folder / "a.png")
    PIL.Image.new("RGB", (30, 20), "white").save(tmp_path / "a_png.png")
    given = (tmp_path / "one" / "a.png", tmp_path / "two", tmp_path / "one", tmp_path / "a_png.png")
    assert run(*given, "--bbox=1,1,9,9", "--out_dir", tmp_path / "out", "--device", "cpu") == 0
    assert capsys.readouterr().out.count("1 person") == 3
    written = {path.name for path in (tmp_path / "out").glob("*_out.png")}
    assert written == {"a_png_2_out.png", "a_png_3_out.png", "a_png_out.png"}


def test_every_photo_has_a_name_of_its_own():
    photos = [Path(name) for name in ("a.jpg", "a.jpeg", "a_jpg.jpg", "x/a.jpg", "b.png")]
    names = command.output_names(photos)
    assert names == ["a_jpg_2", "a_jpeg", "a_jpg", "a_jpg_3", "b"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (True, True)),
        (["--no-fit"], (True, False)),
        (["--no-mirror"], (False, True)),
        (["--checkpoint", "own.pt"], (False, False)),
        (["--checkpoint", "own.pt", "--fit"], (False, True)),
    ],
)
def test_it_mirrors_and_fits_by_default_with_the_open_weights_alone(
    flags, expected, quick, monkeypatch, tmp_path
):
    chosen = []

    def stop(self, *_, **__):
        chosen.append((self.mirror, self.fit))
        raise ValueError

    monkeypatch.setattr(predictor, "describe_weights", lambda _: ("", ""))
    monkeypatch.setattr(Predictor, "find", stop)
    assert run("--device", "cpu", "--out_dir", tmp_path, *flags) == 2
    assert chosen == [expected]
