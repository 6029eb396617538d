"""Odd devices, folders, photos and names, as a user meets them."""

import os
import resource
import struct
import subprocess
import sys
import types
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from smpler import command
from smpler.models import predictor
from smpler.models.detectors.landmarks import SIZES, BlazePoseLandmarkDetector
from smpler.models.predictor import Predictor
from smpler.models.weights.checkpoint import load_model
from smpler.photos import find_photos
from smpler.utils.image import CropWindow, read_image
from smpler.utils.paths import ROOT, SAMPLES


@pytest.fixture
def quick(monkeypatch):
    """Do not build the same model for each test."""
    monkeypatch.setattr(predictor, "load_model", lambda *_, **__: _model())


_MODELS = []


def _model():
    if not _MODELS:
        torch.manual_seed(0)
        _MODELS.append(load_model("smpler-backbone", "init"))
    return _MODELS[0]


def run(*arguments) -> int:
    return command.demo([str(argument) for argument in arguments])


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(8)


@pytest.fixture
def without_heif(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it fails


def test_a_folder_is_read_by_content_and_what_is_skipped_is_named(tmp_path, capsys, without_heif):
    red = PIL.Image.new("RGB", (30, 20), "red")
    for name, kind in {"a.avif": "AVIF", "b.jp2": "JPEG2000", "c.heic": "JPEG", "d": "PNG"}.items():
        red.save(tmp_path / name, format=kind)
    (tmp_path / "e.heic").write_bytes(ftyp(b"heic"))
    (tmp_path / "f.jpg").write_bytes(ftyp(b"mif1"))
    (tmp_path / "g.cr2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0")
    for name in ("t.txt", "u.py", "v.csv", "w.md", ".hidden"):
        (tmp_path / name).write_text("no photo")
    (tmp_path / "video.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(8))
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in find_photos([tmp_path])] == ["a.avif", "b.jp2", "c.heic", "d"]
    heic, raw, others = capsys.readouterr().err.splitlines()
    assert "2 HEIC photos (e.heic, f.jpg): `pip install pillow-heif`" in heic
    assert "1 camera RAW photo (g.cr2): convert it to JPEG" in raw
    assert "5 files (t.txt, u.py, v.csv, ...) not known as photos" in others


def test_a_folder_whose_photos_cannot_be_read_is_one_error(tmp_path, capsys, without_heif):
    (tmp_path / "a.heic").write_bytes(ftyp(b"heic"))
    assert run("--device", "cpu", tmp_path, "--out_dir", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "holds no photo" in error and "1 HEIC photo (a.heic)" in error, error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ftyp(b"heix"), "is a HEIC photo: `pip install pillow-heif` lets it be read."),
        (ftyp(b"crx "), "is a camera RAW photo: convert it to JPEG or PNG."),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL photo: convert it to JPEG or PNG."),
    ],
    ids=["heic", "raw", "jpeg xl"],
)
def test_a_photo_that_cannot_be_read_says_what_to_do(content, message, tmp_path, without_heif):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_image(tmp_path / "a.jpg")
    assert message in str(caught.value)


def test_a_pillow_without_avif_is_named(tmp_path, monkeypatch):
    PIL.Image.new("RGB", (30, 20), "red").save(tmp_path / "a.avif")
    PIL.Image.init()
    monkeypatch.delitem(PIL.Image.OPEN, "AVIF")
    with pytest.raises(ValueError, match="is a AVIF|is an AVIF"):
        read_image(tmp_path / "a.avif")


def test_the_preview_of_a_raw_file_is_not_taken_for_the_photo(tmp_path):
    tags = {0xC612: b"\1\4\0\0"}
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "a.dng", format="TIFF", tiffinfo=tags)
    with pytest.raises(ValueError, match="camera RAW"):
        read_image(tmp_path / "a.dng")


def test_heic_is_read_once_pillow_heif_is_installed(tmp_path, monkeypatch):
    def open_heif(file, name):
        return PIL.Image.new("RGB", (30, 20), "red")

    def register():
        PIL.Image.init()
        monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (open_heif, lambda head: head[4:8] == b"ftyp"))
        monkeypatch.setattr(PIL.Image, "ID", ["HEIF", *PIL.Image.ID])

    fake = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    (tmp_path / "a.heic").write_bytes(ftyp(b"heic"))
    assert find_photos([tmp_path]) == [tmp_path / "a.heic"]
    assert (read_image(tmp_path / "a.heic") == [255, 0, 0]).all()


def png(width: int, height: int) -> bytes:
    """A grey PNG of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + width) * min(height, 4))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000), (60_000, 60_000)])
def test_photos_beyond_all_sizes_are_refused_in_one_sentence(size, quick, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(png(*size))
    assert run("--device", "cpu", tmp_path / "a.png", "--out_dir", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{size[0]} x {size[1]} pixels" in error and "200 megapixels" in error, error


@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000), (60_000, 3)])
def test_thin_photos_are_done_without_a_square_copy(size, quick, tmp_path):
    PIL.Image.new("RGB", size, "red").save(tmp_path / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arguments = ("--device", "cpu", "--fit", tmp_path / "a.png", "--out_dir", tmp_path / "out")
    assert run(*arguments) == 0  # nobody is there
    assert run(*arguments, f"--bbox=0,0,{size[0]},{size[1]}") == 0
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1000, f"{grown} MB; a square copy takes 3700"
    assert PIL.Image.open(tmp_path / "out" / "a_out.png").size == (2 * size[0], size[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value, tmp_path, quick, capsys):
    values = np.full((20, 30), 0.5, np.float32)
    values[3, 4] = value
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    assert run("--device", "cpu", tmp_path / "a.tif", "--out_dir", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "a.tif was not read: some of its values are NaN or infinite" in error


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "cpu:1", "vulkan", "cuda:-1", ""])
def test_devices_that_are_not_there_give_one_sentence(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 0)
    assert run(f"--device={name}", SAMPLES / "im01.png", "--out_dir", tmp_path) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"--device {name} is" in error and error.endswith("cpu."), error


@pytest.mark.parametrize(
    ("flags", "photos", "clips"),
    [((), "heavy", "full"), (("full",), "full", "full"), (("heavy",), "heavy", "heavy")],
)
def test_the_landmark_network_is_chosen_by_a_flag(
    flags, photos, clips, quick, monkeypatch, tmp_path
):
    chosen = []

    def stop(self, *_, **__):
        networks = [self.load_landmark_detector(is_clip).network for is_clip in (False, True)]
        networks.append(self.detectors.for_search().network)
        chosen.extend("heavy" if x.refinement is not None else "full" for x in networks)
        raise ValueError

    monkeypatch.setattr(Predictor, "find", stop)
    flags = [part for flag in flags for part in ("--landmarks", flag)]
    assert run("--device", "cpu", "--out_dir", tmp_path, *flags) == 2
    assert chosen == [photos, clips, "full"]


@pytest.mark.parametrize("size", ["full", "heavy"])
def test_a_missing_landmark_network_is_said_before_anybody_is_searched(
    size, quick, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(SIZES, size, (SIZES[size][0], f"{size}_is_missing.npz"))
    monkeypatch.setattr(Predictor, "find", lambda *_, **__: pytest.fail("somebody was searched"))
    assert run("--device", "cpu", "--out_dir", tmp_path, "--landmarks", size) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{size}_is_missing.npz" in error


def test_a_landmark_network_that_is_not_there_is_refused(quick, capsys):
    with pytest.raises(SystemExit) as caught:
        run("--landmarks", "lite")
    assert caught.value.code == 2
    assert "'lite'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="landmarks is 'lite'; choose one of full, heavy."):
        Predictor.load(landmarks="lite")


def test_devices_that_are_there_are_taken(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)
    for name in ("mps", "mps:0", "xpu", "xpu:1", "cpu", "cpu:0"):
        assert command.choose_device(name) == torch.device(name)
    with pytest.raises(ValueError, match="--device xpu:2 is not there"):
        command.choose_device("xpu:2")


def test_the_fit_makes_float64_of_nothing_that_is_on_the_device(monkeypatch):
    """A Mac's GPU has no float64."""
    model = load_model()
    model.smpl.estimate(*_rest(model), "skeleton")  # what is derived from the body is made once
    detector = BlazePoseLandmarkDetector.load()
    photo = read_image(SAMPLES / "im01.png")
    window = CropWindow.for_box((160.0, 110.0, 250.0, 430.0))
    moved, cpu, double = [], torch.Tensor.cpu, torch.Tensor.double

    def to_cpu(tensor):
        moved.append(cpu(tensor))
        return moved[-1]

    def to_double(tensor):
        assert any(tensor is other for other in moved), "float64 on the device"
        return double(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", to_cpu)
    monkeypatch.setattr(torch.Tensor, "double", to_double)
    Predictor(model, landmark_detector=detector, mirror=True).look(photo, [window])
    assert moved


def _rest(model):
    return torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10), torch.tensor([[0.9, 0.0, 0.0]])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8_is_done_and_printed(quick, tmp_path, capsys):
    photo = tmp_path / os.fsdecode(b"a\xff\xc3\xa9.png")
    PIL.Image.new("RGB", (30, 20), "red").save(photo)
    assert run("--device", "cpu", photo, "--bbox=1,1,9,9", "--out_dir", tmp_path / "out") == 0
    assert r"a\xff" in capsys.readouterr().out
    names = {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()}
    assert b"a\xff\xc3\xa9_out.png" in names and len(names) == 8, names
    person = np.load(tmp_path / "out" / os.fsdecode(b"a\xff\xc3\xa9_0.npz"))
    assert str(person["image"]) == r"a\xffé.png"


def test_a_name_that_the_terminal_cannot_show_is_printed_with_escapes(tmp_path):
    photo = tmp_path / "写真.png"
    PIL.Image.new("RGB", (30, 20), "red").save(photo)
    done = subprocess.run(
        [sys.executable, "demo.py", photo, "--device", "cpu", "--out_dir", tmp_path / "out"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert r"\u5199\u771f.png" in done.stdout


@pytest.mark.slow
def test_101_megapixels_take_less_than_one_and_a_half_gigabytes(tmp_path):
    size = (11648, 8736)
    person = read_image(SAMPLES / "im01.png")
    scale = 0.9 * size[1] / len(person)
    person = cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    photo = PIL.Image.new("RGB", size, (120, 120, 120))
    left, top = (size[0] - person.shape[1]) // 2, (size[1] - person.shape[0]) // 2
    photo.paste(PIL.Image.fromarray(person), (left, top))
    photo.save(tmp_path / "a.jpg")
    # a process's own peak, in kB; what getrusage says begins with that of its parent
    code = (
        "import sys; from smpler import command; code = command.demo(sys.argv[1:]);"
        "lines = open('/proc/self/status').read().splitlines();"
        "print(*[int(x.split()[1]) / 1e6 for x in lines if x.startswith('VmHWM')]);"
        "sys.exit(code)"
    )
    arguments = [tmp_path / "a.jpg", "--device", "cpu", "--out_dir", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    peak = float(done.stdout.splitlines()[-1])
    assert peak < 1.5, f"{peak} GB"
    assert PIL.Image.open(tmp_path / "out" / "a_0_overlay.png").size == size
