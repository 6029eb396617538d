import base64
import json
import pickle
import random
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.tsv import TsvWriter
from smpler.datasets.tsv_file import BadSampleError
from smpler.utils.image import CropWindow
from smpler.utils.image import crop as crop_photo
from smpler.utils.joints import ANNOTATION_NAMES, KEYPOINT_NAMES
from smpler.utils.paths import ROOT
from tests.support.tsv_data import (
    jpeg,
    person_label,
    replace_row,
    smooth_image,
    table,
    write_random_set,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_random_set(tmp_path_factory.mktemp("good") / "train.yaml", 6)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a if k != "key")


def test_an_item_holds_what_the_contract_says(good):
    for training in (True, False):
        item = HumanMesh(good, training=training)[2]
        shapes = {
            "image": (3, 224, 224), "keypoints_2d": (14, 3), "keypoints_3d": (14, 4),
            "pose": (72,), "betas": (10,), "center": (2,), "scale": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            assert item[name].shape == shape and item[name].dtype == torch.float32, name
        rest = {"index": 2, "key": "train/2", "gender": 2, "has_smpl": True,
                "has_keypoints_2d": True, "has_keypoints_3d": True}  # fmt: skip
        assert {name: item[name] for name in rest} == rest
        assert set(item) == {*shapes, *rest}
        assert 0 <= item["image"].min() < item["image"].max() <= 1


def test_a_loader_makes_batches_of_it(good):
    batch = next(iter(DataLoader(HumanMesh(good, training=True), batch_size=3)))
    assert batch["image"].shape == (3, 3, 224, 224) and batch["key"][1] == "train/1"
    assert batch["has_smpl"].dtype == torch.bool and batch["gender"].dtype == torch.int64
    assert batch["index"].tolist() == [0, 1, 2]


def test_keypoints_are_picked_by_name(tmp_path):
    rng = np.random.default_rng(0)
    label = person_label(rng)
    label["3d_joints"][:, 0] = np.arange(24)
    with TsvWriter(tmp_path / "train.yaml") as writer:
        writer.add("a", jpeg(smooth_image(240, 320)), (240, 320), label)
    x = HumanMesh(tmp_path / "train.yaml", training=False)[0]["keypoints_3d"][:, 0]
    pelvis = ANNOTATION_NAMES.index("Pelvis")
    names = [ANNOTATION_NAMES[round(value + pelvis)] for value in x.tolist()]
    assert tuple(names) == KEYPOINT_NAMES


def test_evaluation_sees_the_crop_that_the_demo_sees(good):
    data = HumanMesh(good, training=False)
    label = data.samples.label(0)
    window = CropWindow.around(tuple(label["center"]), label["scale"])
    photo = smooth_image(240, 320)
    worst = np.abs(crop_photo(photo, window).transpose(2, 0, 1) - data[0]["image"].numpy()).mean()
    assert 255 * worst < 1.5, f"{255 * worst:.2f} grey levels apart (JPEG alone makes 1)"


def test_joints_nested_once_more_are_the_same(tmp_path, good):
    rng = np.random.default_rng(5)
    label = person_label(rng)
    nested = label | {name: label[name][None] for name in ("2d_joints", "3d_joints")}
    for name, content in (("flat", label), ("nested", nested)):
        with TsvWriter(tmp_path / f"{name}.yaml") as writer:
            writer.add("a", jpeg(smooth_image(240, 320)), (240, 320), content)
    flat, nested = (
        HumanMesh(tmp_path / f"{n}.yaml", training=False)[0] for n in ("flat", "nested")
    )
    assert same(flat, nested)


def test_augmentation_depends_on_seed_epoch_and_index_alone(good):
    def epoch(number: int, seed: int = 1, **kwargs) -> list[dict]:
        data = HumanMesh(good, training=True, seed=seed)
        data.set_epoch(number)
        return list(DataLoader(data, batch_size=None, **kwargs))

    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    alone = epoch(3)
    assert state[0] == random.getstate() and state[1] == np.random.get_state()[1].tolist()
    for workers in (1, 2):
        assert all(map(same, alone, epoch(3, num_workers=workers))), f"{workers} workers differ"
    data = HumanMesh(good, training=True, seed=1)
    data.set_epoch(3)
    assert all(same(alone[i], data[i]) for i in (5, 0, 3)), "the order of access matters"
    for other in (epoch(4), epoch(3, seed=2)):
        assert not any(map(same, alone, other))


def test_persistent_workers_follow_the_epoch(good):
    data = HumanMesh(good, training=True)
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True)
    epochs = []
    for number in range(2):
        data.set_epoch(number)
        epochs.append(list(loader))
    assert not any(map(same, *epochs))


def test_large_photos_are_decoded_smaller_in_training_only(tmp_path):
    rng = np.random.default_rng(0)
    image = smooth_image(1200, 1200)
    with TsvWriter(tmp_path / "big.yaml") as writer:
        writer.add("a", jpeg(image), (1200, 1200), person_label(rng, 1200, 1200))
    training, evaluation = (HumanMesh(tmp_path / "big.yaml", training=t) for t in (True, False))
    same_augmentation = training.augmentation(0)
    a, b = (d.load(0, same_augmentation)["image"] for d in (training, evaluation))
    assert 0 < (a - b).abs().mean() * 255 < 2, f"{(a - b).abs().mean() * 255:.2f} grey levels"
    rounded = (a / torch.tensor(same_augmentation.gains)[:, None, None] * 255) % 1
    assert torch.minimum(rounded, 1 - rounded)[a < 1].max() < 1e-3, "training may round to 8 bits"
    rounded = (b / torch.tensor(same_augmentation.gains)[:, None, None] * 255) % 1
    assert torch.minimum(rounded, 1 - rounded)[b < 1].max() > 0.4, "evaluation must not"


BAD_LABELS = {
    "nan": ({"pose": [float("nan")] * 72}, "pose holds nan"),
    "infinite": ({"2d_joints": [[1e999, 0, 1]] * 24}, "2d_joints holds inf"),
    "float32": ({"betas": [1e39] + [0] * 9}, r"betas holds 1e\+39, too large for float32"),
    "400 digits": ({"pose": [10**400] * 72}, "pose is no array of 72 numbers"),
    "float32, in a tiny box": ({"scale": 1e-40}, "keypoints_2d becomes .* cannot hold"),
    "wrong count": ({"3d_joints": [[0, 0, 0, 1]] * 23}, "3d_joints has 92 numbers instead of 96"),
    "missing": ({"betas": None}, "betas has 1 numbers instead of 10"),
    "ragged": ({"2d_joints": [[1, 2], [3]]}, "2d_joints is no array of 72 numbers"),
    "no scale": ({"scale": 0}, "scale is 0"),
    "huge": ({"scale": 1e6}, r"scale is 1e\+06"),
    "center": ({"center": [1]}, "center has 1 numbers instead of 2"),
    "far away": ({"center": [1e20, 0.0]}, r"center is 1e\+20, 0, which is in no photo"),
    "gender": ({"gender": "x"}, "gender is 'x'"),
    "flag": ({"has_smpl": "yes"}, "has_smpl is 'yes'"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_bad_label_is_named_by_file_and_row(name, tmp_path):
    changes, message = BAD_LABELS[name]
    path = write_random_set(tmp_path / "train.yaml")
    rng = np.random.default_rng(0)
    label = {k: np.asarray(v).tolist() for k, v in person_label(rng).items()} | changes
    replace_row(table(path, "label"), 2, b"k\t" + json.dumps([label]).encode())
    for training in (True, False):
        with pytest.raises(BadSampleError, match=rf"/label\.tsv row 2: ({message})"):
            HumanMesh(path, training=training)[2]


def test_what_is_not_annotated_may_be_absent_or_nan(tmp_path):
    rng = np.random.default_rng(0)
    label = person_label(rng)
    del label["pose"], label["gender"]
    label |= {"has_smpl": 0, "has_3d_joints": 0}
    text = json.dumps([{k: np.asarray(v).tolist() for k, v in label.items()}])
    text = text.replace('"3d_joints": [[', '"3d_joints": [[NaN, ')
    path = write_random_set(tmp_path / "train.yaml")
    replace_row(table(path, "label"), 0, b"k\t" + text.encode())
    item = HumanMesh(path, training=False)[0]
    assert not item["has_smpl"] and not item["has_keypoints_3d"] and item["has_keypoints_2d"]
    assert item["gender"] == 0 and not item["pose"].any()
    assert all(torch.isfinite(v).all() for v in item.values() if torch.is_tensor(v))


def spoil(path) -> None:
    """Break three of six rows in three ways."""
    replace_row(table(path, "img"), 1, b"k\t" + base64.b64encode(b"no image at all"))
    replace_row(table(path, "img"), 2, b"k\t/9j/4AAQ")
    replace_row(table(path, "label"), 5, b"k\t[{")


def test_an_undecodable_image_is_named_by_file_and_row(tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 6)
    spoil(path)
    for index, message in ((1, "img.tsv row 1: 15 bytes that are no image"), (2, "img.tsv row 2")):
        with pytest.raises(BadSampleError, match=message):
            HumanMesh(path, training=False)[index]


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp"])
def test_a_photo_of_too_many_pixels_is_not_decoded(kind, tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 1)
    data = cv2.imencode(f".{kind}", smooth_image(64, 64))[1].tobytes()
    side, old = 0xFF00, {"jpg": b"\x00\x40\x00\x40", "png": b"\x00\x00\x00\x40" * 2}
    old["bmp"] = b"\x40\x00\x00\x00" * 2
    count, order = len(old[kind]) // 2, "little" if kind == "bmp" else "big"
    bomb = data.replace(old[kind], side.to_bytes(count, order) * 2, 1)
    if kind == "png":
        bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    assert bomb != data
    for content, message in ((bomb, "row 0: the image has more than 200 megapixels"), (data, None)):
        replace_row(table(path, "img"), 0, b"k\t" + base64.b64encode(content))
        if message:
            with pytest.raises(BadSampleError, match=message):
                HumanMesh(path, training=True)[0]
        else:
            assert HumanMesh(path, training=True)[0]["image"].max() > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_training_may_skip_bad_rows_and_counts_them(workers, tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 6)
    spoil(path)
    data = HumanMesh(path, training=True, on_bad_sample="skip")
    loader = DataLoader(data, batch_size=2, num_workers=workers)
    indices = torch.cat([batch["index"] for batch in loader]).tolist()
    assert indices == [0, 3, 3, 3, 4, 0], "the next good row stands in"
    assert data.num_skipped == 4, f"{data.num_skipped} skipped; rows 1 + 2, 2 and 5 are four"


def test_evaluation_never_skips(good):
    with pytest.raises(ValueError, match="Evaluation skips no sample"):
        HumanMesh(good, training=False, on_bad_sample="skip")
    with pytest.raises(ValueError, match="'ignore'"):
        HumanMesh(good, training=True, on_bad_sample="ignore")


def test_a_set_of_bad_rows_alone_ends_with_an_error(tmp_path):
    path = write_random_set(tmp_path / "train.yaml", 3)
    for row in range(3):
        replace_row(table(path, "label"), row, b"k\t[{")
    with pytest.raises(BadSampleError, match="rows after it are bad"):
        HumanMesh(path, training=True, on_bad_sample="skip")[0]


def test_a_data_set_can_be_pickled(good):
    data = HumanMesh(good, training=True, seed=4)
    data.set_epoch(2)
    assert same(pickle.loads(pickle.dumps(data))[1], data[1])


def test_workers_may_be_spawned(good):
    program = (
        "import sys, torch; from torch.utils.data import DataLoader\n"
        "from smpler.datasets.human_mesh import HumanMesh\n"
        "if __name__ == '__main__':\n"
        "    data = HumanMesh(sys.argv[1], training=True)\n"
        "    loader = DataLoader(data, num_workers=1, multiprocessing_context='spawn')\n"
        "    print([int(batch['index']) for batch in loader])\n"
    )
    command = [sys.executable, "-c", program, str(good)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[0, 1, 2, 3, 4, 5]", done.stderr


def test_a_loop_over_the_set_ends_and_no_index_wraps(good):
    dataset = HumanMesh(good, training=True)
    assert len([item["index"] for item in dataset]) == 6
    for index in (6, -1):
        with pytest.raises(IndexError, match=f"sample {index} of 6"):
            dataset[index]
