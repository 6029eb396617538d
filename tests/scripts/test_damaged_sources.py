"""Damaged and odd contents of other formats: one sentence, or dropped and counted."""

import json
import pickle
import re

import numpy as np
import pytest

from scripts import convert_spin_npz
from smpler.datasets.tsv import TsvDataset
from tests.scripts.test_converters import (
    COCO_NAMES,
    dpw,
    run_3dpw,
    run_coco,
    run_folder,
    run_spin,
    spin_arrays,
    write_photos,
)
from tests.support.tsv_data import jpeg, smooth_image

__all__ = ["dpw"]

NAN, HUGE = float("nan"), 10**400


def only_error(capsys) -> str:
    """The one line that was printed as an error."""
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].isprintable() and len(error[0]) < 600, error
    return error[0]


def nothing_is_left(folder) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def changed(array, index, value):
    array = np.array(array, dtype=np.float64)
    array[index] = value
    return array


BAD_SEQUENCES = {
    "no cameras": (lambda s: s.pop("cam_poses"), "has no 'cam_poses'; is it a sequence of 3DPW"),
    "cameras of 3 x 4": (lambda s: s.update(cam_poses=s["cam_poses"][:, :3]),
                         r"'cam_poses' has shape \(4, 3, 4\), not \('n', 4, 4\)"),
    "a name that is a path": (lambda s: s.update(sequence="../../etc"), "'../../etc', which is no"),
    "a name that is none": (lambda s: s.update(sequence=5), "calls its sequence 5"),
    "another gender": (lambda s: s.update(genders=["m", "x"]), r"genders \['m', 'x'\], not m or f"),
    "genders as text": (lambda s: s.update(genders="mf"), "the genders 'mf', not m or f for each"),
    "one gender": (lambda s: s.update(genders=["m"]), "'poses' holds 2 people, 'genders' 1"),
    "one pose": (lambda s: s["poses"].pop(), "'poses' holds 1 people, 'genders' 2"),
    "poses as text": (lambda s: s.update(poses="text"), "'poses' holds no people"),
    "fewer frames": (lambda s: s.update(trans=[t[:3] for t in s["trans"]]),
                     r"'trans' of person 0 has shape \(3, 3\), not \(4, 3\)"),
    "axis-angles of 23": (lambda s: s.update(poses=[p[:, :69] for p in s["poses"]]),
                          r"'poses' of person 0 has shape \(4, 69\), not \(4, 72\)"),
    "valid of one frame": (lambda s: s.update(campose_valid=[np.ones(1), np.ones(4)]),
                           r"'campose_valid' of person 0 has shape \(1,\)"),
    "three betas": (lambda s: s.update(betas=[np.zeros(3)] * 2), "'betas' of person 0 has 3 numb"),
    "ragged": (lambda s: s.update(trans=[[[1, 2], [3]]] * 2), "'trans' of person 0 is no array"),
    "texts": (lambda s: s.update(betas=[["a"] * 10] * 2), "'betas' of person 0 is no array of num"),
    "a dict": (lambda s: s.update(cam_intrinsics={"f": 1}), "'cam_intrinsics' is no array of num"),
    "no pinhole": (lambda s: s.update(cam_intrinsics=np.zeros((3, 3))), "is no pinhole camera"),
    "NaN as focal length": (lambda s: s.update(cam_intrinsics=np.diag([NAN, 1, 1])), "no pinhole"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_SEQUENCES)
def test_a_sequence_of_another_kind_is_one_sentence(kind, dpw, capsys):
    root, sequence = dpw
    change, message = BAD_SEQUENCES[kind]
    change(sequence)
    (root / "sequenceFiles/test/walk_00.pkl").write_bytes(pickle.dumps(sequence, protocol=2))
    assert run_3dpw(root) == 2
    error = only_error(capsys)
    assert re.search(message, error), error
    assert nothing_is_left(root / "out")


CAMERA = "whose camera is no rotation and shift in metres"
PARAMETERS = "whose SMPL parameters are no body's"
BAD_FRAMES = {
    "NaN in a camera": ("cam_poses", (1, 0, 0), NAN, 2, CAMERA),
    "inf in a camera": ("cam_poses", (1, 0, 3), np.inf, 2, CAMERA),
    "no rotation": ("cam_poses", (1, slice(3), slice(3)), 0, 2, CAMERA),
    "a mirrored camera": ("cam_poses", (1, slice(3), slice(3)), -np.eye(3), 2, CAMERA),
    "a camera in millimetres": ("cam_poses", (1, 2, 3), 5000, 2, CAMERA),
    "NaN in a pose": ("poses", (0, 1, 5), NAN, 1, PARAMETERS),
    "a huge pose": ("poses", (0, 1, 5), 1e39, 1, PARAMETERS),
    "NaN in a place": ("trans", (1, 0, 0), NAN, 1, PARAMETERS),
    "NaN in betas": ("betas", (0, 9), NAN, 3, PARAMETERS),
    "NaN as detection": ("poses2d", (0, 0, 0, 4), NAN, 1, "with an unusable label"),
    "a huge detection": ("poses2d", (0, 0, 1, 4), 1e300, 1, "with an unusable label"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_frames_of_impossible_numbers_are_dropped_and_counted(kind, dpw, capsys):
    root, sequence = dpw
    name, index, value, count, reason = BAD_FRAMES[kind]
    bad = changed(np.array(sequence[name]), index, value)
    sequence[name] = bad if name == "cam_poses" else list(bad)
    (root / "sequenceFiles/test/walk_00.pkl").write_bytes(pickle.dumps(sequence, protocol=2))
    assert run_3dpw(root) == 0
    printed = capsys.readouterr().out
    assert f"{6 - count} samples" in printed and f"dropped: {count} " in printed, printed
    assert reason in printed
    data = TsvDataset(root / "out/test.yaml")
    assert len(data) == 6 - count
    for i in range(len(data)):
        assert np.isfinite([data.label(i)["pose"]]).all()


@pytest.mark.parametrize("kind", ["a list", "no pickle", "cut off"])
def test_a_file_that_is_no_sequence_is_one_sentence(kind, dpw, capsys):
    root, sequence = dpw
    whole = pickle.dumps(sequence, protocol=2)
    content = {
        "a list": pickle.dumps([1, 2]), "no pickle": b"<html>", "cut off": whole[: len(whole) // 2],
    }[kind]  # fmt: skip
    (root / "sequenceFiles/test/walk_00.pkl").write_bytes(content)
    assert run_3dpw(root) == 2
    assert "walk_00.pkl" in only_error(capsys) and nothing_is_left(root / "out")


BAD_ARRAYS = {
    "texts as centers": ({"center": np.full((3, 2), "12")}, "'center' holds texts where numbers"),
    "texts as joints": ({"part": np.full((3, 24, 3), "x")}, "'part' holds texts where numbers"),
    "another flag": ({"has_smpl": np.array([1, 0, 5.0])}, "'has_smpl' holds 5, not 0 or 1"),
    "NaN as flag": ({"has_smpl": np.array([1, 0, NAN])}, "'has_smpl' holds nan, not 0 or 1"),
    "a single name": ({"imgname": np.array("a.jpg")}, r"'imgname' has shape \(\), not \(1,\)"),
    "other lengths": ({"shape": np.zeros((2, 10))}, r"'shape' has shape \(2, 10\), not \(3, 10\)"),
    "objects": ({"pose": np.array([{}, {}, {}])}, "is no npz of arrays"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_a_spin_npz_of_another_kind_is_one_sentence(kind, tmp_path, capsys):
    changes, message = BAD_ARRAYS[kind]
    assert run_spin(tmp_path, spin_arrays() | changes) == 2
    error = only_error(capsys)
    assert re.search(message, error), error
    assert nothing_is_left(tmp_path / "out")


def test_impossible_numbers_of_a_spin_npz_are_dropped_and_counted(tmp_path, capsys):
    arrays = spin_arrays()
    write_photos(tmp_path, arrays["imgname"])
    for name, index, value in (("center", (0, 0), NAN), ("scale", 1, 1e39)):
        assert run_spin(tmp_path, arrays | {name: changed(arrays[name], index, value)}) == 0
        printed = capsys.readouterr().out
        assert "2 samples" in printed and "dropped: 1 with an unusable label" in printed, printed
    for name, index in (("part", (1, 5, 1)), ("S", (0, 2, 2)), ("pose", (0, 7)), ("shape", (2, 3))):
        for value in (NAN, np.inf, 1e39):
            bad = changed(arrays[name], index, value)
            assert run_spin(tmp_path, arrays | {name: bad}) == 0
            assert "dropped: 1 with an unusable label" in capsys.readouterr().out, (name, value)
    latin = np.array([b"\xff.jpg", b"images/1.jpg", b"\x1b[31m"])
    assert run_spin(tmp_path, arrays | {"imgname": latin}) == 0
    printed = capsys.readouterr().out
    assert r"1 photos that are missing (\xff.jpg)" in printed
    assert r"1 photos whose names hold control characters (\x1b[31m)" in printed
    assert convert_spin_npz.gender(np.bytes_(b"\xff")) is None


GOOD = {"image_id": 7, "keypoints": [*range(50, 50 + 51)], "bbox": [40, 30, 100, 160]}
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}],
    "categories": [{"name": "person", "id": 1, "keypoints": COCO_NAMES}],
    "annotations": [GOOD],
}
BAD_COCO = {
    "a list": ([1], "is no file of COCO keypoints"),
    "no person": (COCO | {"categories": [{"name": "dog"}]}, "is no file of COCO keypoints"),
    "numbers as names": (COCO | {"categories": [{"keypoints": [1, 2]}]}, "no file of COCO keypoin"),
    "other names": (COCO | {"categories": [{"keypoints": ["tail", "paw"]}]}, "not as COCO does"),
    "a name twice": (COCO | {"categories": [{"keypoints": COCO_NAMES + COCO_NAMES}]}, "not as COC"),
    "a list as id": (COCO | {"images": [{"id": [7], "file_name": "a.jpg"}]}, "no file of COCO"),
    "an id twice": (COCO | {"images": COCO["images"] * 2}, "two of its images have one id"),
    "a dict of annotations": (COCO | {"annotations": {"a": GOOD}}, "'annotations' is no list"),
}


@pytest.mark.parametrize("kind", BAD_COCO)
def test_a_json_of_another_kind_is_one_sentence(kind, tmp_path, capsys):
    content, message = BAD_COCO[kind]
    assert run_coco(tmp_path, content) == 2
    error = only_error(capsys)
    assert re.search(message, error), error
    assert not list(tmp_path.glob("c.*")) and not list(tmp_path.glob("*.part"))


BAD_PEOPLE = [
    5, None, [], {}, GOOD | {"image_id": [7]}, GOOD | {"bbox": "12"}, GOOD | {"bbox": [1, 2, 3]},
    GOOD | {"bbox": [1, 2, 0, 5]}, GOOD | {"bbox": [NAN, 1, 2, 3]}, GOOD | {"keypoints": "x" * 51},
    GOOD | {"keypoints": [[1, 2, 3]] * 17}, GOOD | {"keypoints": [HUGE] * 51},
    GOOD | {"keypoints": [1e39] * 51}, GOOD | {"keypoints": ["1"] * 51},
    GOOD | {"keypoints": [NAN] * 51}, GOOD | {"keypoints": None}, GOOD | {"bbox": None},
    {name: GOOD[name] for name in ("image_id", "keypoints")},
]  # fmt: skip


def test_damaged_annotations_are_dropped_and_counted(tmp_path, capsys):
    write_photos(tmp_path, ["a.jpg"])
    annotations = [*BAD_PEOPLE, GOOD | {"category_id": 2}, GOOD | {"category_id": 1}, GOOD]
    assert run_coco(tmp_path, COCO | {"annotations": annotations}) == 0
    printed = capsys.readouterr().out
    assert "2 samples" in printed and "1 annotations of other categories" in printed, printed
    assert f"{len(BAD_PEOPLE)} people whose annotation is damaged (annotation 0: " in printed
    assert all(len(line) < 1500 for line in printed.splitlines())


GOOD_ENTRY = {"image": "a.jpg", "box": [10, 20, 30, 60]}
BAD_ENTRIES = {
    "a number": (5, "5 is no person; see --help"),
    "a list": ([["image", "a.jpg"]], "is no person"),
    "a number as image": ({"image": 5}, "'image' is missing"),
    "keypoints as list": ({"keypoints_2d": [[1, 2]]}, "keypoints_2d is .*, not a dict of joints"),
    "a joint as text": ({"keypoints_2d": {"Head": "12"}}, "Head is '12', not a list of numbers"),
    "texts": ({"keypoints_2d": {"Head": ["1", "2"]}}, r"Head is \['1', '2'\], not a list of num"),
    "NaN": ({"keypoints_2d": {"Head": [NAN, 2]}}, r"Head is \[nan, 2\], not of numbers that are f"),
    "float32": ({"keypoints_2d": {"Head": [1e39, 2]}}, "not of numbers that are finite in float32"),
    "400 digits": ({"box": [HUGE, 1, 2, 3]}, "not of numbers that are finite in float32"),
    "a box of texts": ({"box": ["1", 2, 3, 4]}, "box is .*, not a list of numbers"),
    "an empty box": ({"box": [1, 2, 0, 5]}, r"box is \[1, 2, 0, 5\], not x, y, width, height"),
    "truth as number": ({"box": [True, 2, 3, 4]}, "box is .*, not a list of numbers"),
    "no hips": ({"keypoints_3d": {"Head": [0, 0, 3]}}, "neither Pelvis nor L_Hip and R_Hip"),
    "one hip": ({"keypoints_3d": {"L_Hip": [0, 0, 3]}}, "neither Pelvis nor L_Hip and R_Hip"),
    "a pose alone": ({"pose": [0] * 72}, "one of pose and betas is missing"),
    "a pose as text": ({"pose": "0", "betas": [0] * 10}, "pose is '0', not a list of numbers"),
    "escape codes": ({"keypoints_2d": {"\x1b[31m": [1, 2]}}, r"'\\x1b\[31m' is no annotated joint"),
}


@pytest.mark.parametrize("kind", BAD_ENTRIES)
def test_an_entry_of_another_kind_is_one_sentence(kind, tmp_path, capsys):
    change, message = BAD_ENTRIES[kind]
    write_photos(tmp_path, ["a.jpg"])
    entry = GOOD_ENTRY | change if isinstance(change, dict) else change
    assert run_folder(tmp_path, [GOOD_ENTRY, entry]) == 2
    error = only_error(capsys)
    assert re.search(rf"people\.json, entry 1: .*{message}", error), error
    assert not list(tmp_path.glob("own.*"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "{}", '[{"image": "a", "image": "b"}]', "\x00"]
)
def test_a_json_that_is_none_is_one_sentence(text, tmp_path, capsys):
    assert run_folder(tmp_path, text) == 2
    assert "people.json" in only_error(capsys)


def test_photos_that_cannot_be_read_are_dropped_and_counted(tmp_path, capsys):
    photo = jpeg(smooth_image(64, 64))
    start = photo.index(b"\xff\xc0")
    bomb = photo[: start + 5] + b"\xff\x00\xff\x00" + photo[start + 9 :]
    for name, content in (("cut.jpg", photo[:-20]), ("empty.jpg", b""), ("bomb.jpg", bomb)):
        (tmp_path / name).write_bytes(content)
    write_photos(tmp_path, ["good.jpg"])
    names = ["good.jpg", "cut.jpg", "empty.jpg", "bomb.jpg", "gone.jpg", "x" * 300, "a\x00b", "."]
    assert run_folder(tmp_path, [GOOD_ENTRY | {"image": name} for name in names]) == 0
    printed = capsys.readouterr().out
    for part in ("own.yaml: 1 samples", "1 photos of more than 200 megapixels (bomb.jpg)",
                 "3 photos that cannot be read (cut.jpg, empty.jpg", "2 photos that are missing (",
                 r"1 photos whose names hold control characters (a\x00b)"):  # fmt: skip
        assert part in printed, printed


def test_a_label_of_deep_or_endless_values_is_named_shortly(tmp_path, capsys):
    write_photos(tmp_path, ["a.jpg"])
    for value in (HUGE, "\x1b" * 10_000, json.loads("[" * 900 + "]" * 900)):
        assert run_folder(tmp_path, [GOOD_ENTRY | {"gender": value}]) == 1
        printed = capsys.readouterr().out
        assert "1 with an unusable label" in printed
        assert all(len(line) < 400 and line.isprintable() for line in printed.splitlines())
