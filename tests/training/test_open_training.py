"""The open data engine in main.py and on disk, with a small stand-in wardrobe."""

import json

import cv2
import numpy as np
import pytest
import torch

import main
from scripts import render_dataset
from smpler.datasets import PROTOCOLS
from smpler.datasets.engine import stream as engine_stream
from smpler.datasets.engine.stored import MARGIN, PHOTO_SIZE, RenderedPhotos
from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.labels import Label
from smpler.datasets.sources import evaluation_set, training_set
from smpler.datasets.tsv import TsvDataset
from smpler.models.body import open_body
from smpler.training import assembly
from smpler.training.checkpoint import load_checkpoint
from smpler.training.distributed import Processes, TrainSampler
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import ANNOTATION_NAMES, KEYPOINTS_FROM_ANNOTATION
from tests.support.small_main import build_tiny
from tests.support.standin_wardrobe import wardrobe

NUM_VALIDATION = 4
COMMON = ("--data_mode=open", "--device=cpu", "--hrnet_type=w32", "--num_workers=0")


@pytest.fixture(scope="module")
def body():
    return open_body()


@pytest.fixture(autouse=True)
def small_engine(monkeypatch, body):
    monkeypatch.setattr(assembly, "build_smpler", build_tiny)
    clothes = wardrobe(body)
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: clothes)
    monkeypatch.setattr(engine_stream, "VALIDATION_SIZE", NUM_VALIDATION)
    monkeypatch.setattr(render_dataset, "VALIDATION_SIZE", NUM_VALIDATION)


def run(logs, *flags: str) -> int:
    return main.main([*COMMON, f"--log_root={logs}", *flags])


def rendered_stream(body, split: str = "train", seed: int = 5) -> engine_stream.SyntheticPeople:
    return engine_stream.SyntheticPeople(body, split=split, seed=seed, augment=False)


# --- main.py


def test_training_streams_and_evaluates_on_the_fixed_set(tmp_path):
    flags = ("--epoch_samples=4", "--batch_size=2", "--num_epochs=1", "--exp_name=run")
    assert run(tmp_path, *flags) == 0
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert state["global_iter"] == 2 and state["num_samples"] == 4
    assert state["protocol"]["name"] == "open" and state["body"]["name"] == "open"
    result = json.loads((tmp_path / "run" / "evaluations" / "epoch_000.json").read_text())
    for name in ("mpve", "mpjpe", "mpjpe-pa"):
        assert result["metrics"][name]["samples"] == NUM_VALIDATION
        assert 0 < result["metrics"][name]["mean_mm"] < 2000


def test_evaluation_of_the_fixed_set_is_reproducible_to_1e_6(tmp_path):
    torch.manual_seed(0)
    for name, flags in {"one": ("--val_batch_size=3",), "two": ("--val_batch_size=2",)}.items():
        assert run(tmp_path, "--eval_only", f"--exp_name={name}", *flags) == 0
    one, two = (dict(np.load(tmp_path / name / "eval_open.npz")) for name in ("one", "two"))
    assert one["index"].tolist() == list(range(NUM_VALIDATION))
    assert one["key"].tolist() == two["key"].tolist()
    for name in ("mpve", "mpjpe", "mpjpe-pa"):
        assert np.abs(one[name] - two[name]).max() < 1e-6, name


def test_a_streamed_run_continues_exactly(tmp_path):
    flags = ("--epoch_samples=4", "--batch_size=2", "--exp_name")
    assert run(tmp_path, *flags, "whole", "--num_epochs=2") == 0
    for epochs in (1, 2):
        assert run(tmp_path, *flags, "cut", f"--num_epochs={epochs}", "--auto_load=1") == 0
    whole, cut = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "cut")
    )
    for name, value in whole["model"].items():
        assert value.equal(cut["model"][name]), name


def test_samples_depend_on_seed_epoch_and_index_alone(body):
    def samples(epoch: int, rank: int) -> list[tuple[int, torch.Tensor]]:
        dataset = engine_stream.SyntheticPeople(body, seed=3).first(12)
        dataset.set_epoch(epoch)
        sampler = TrainSampler(12, 2, Processes(rank, 2, torch.device("cpu")), seed=3)
        sampler.set_position(epoch, first_batch=1)
        return [(i, dataset[i]["pose"]) for batch in sampler for i in batch]

    first, again = samples(1, 0), samples(1, 0)
    assert [i for i, _ in first] == [i for i, _ in again]
    assert all(a.equal(b) for (_, a), (_, b) in zip(first, again, strict=True))
    other = samples(1, 1)
    assert not {i for i, _ in first} & {i for i, _ in other}, "ranks share no sample"
    index, pose = first[0]
    dataset = engine_stream.SyntheticPeople(body, seed=3).first(12)
    assert not dataset[index]["pose"].equal(pose), "another epoch shows other people"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--open_data=nowhere",), "render_dataset --out nowhere"),
        (("--amass=nowhere.npz",), "no such AMASS file or folder"),
    ],
)
def test_missing_data_gives_one_sentence(flags, message, tmp_path, capsys):
    assert run(tmp_path, *flags) == 2
    errors = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_open_and_open2_train_on_the_same_poses_and_are_evaluated_on_others(monkeypatch, body):
    val = rendered_stream(body, "val")
    assert val.poses.version == 1, "open/1 is what streams of `val` show, unless they are told"
    drawn = []

    def people(body, poses, **arguments):
        drawn.append(poses.version)
        return val

    monkeypatch.setattr(engine_stream, "SyntheticPeople", people)
    for name in ("open", "open2"):
        assert len(evaluation_set(PROTOCOLS[name], body)) == NUM_VALIDATION
        assert len(training_set(PROTOCOLS[name], body, seed=0, epoch_samples=7)) == 7
    assert drawn == [1, 2, 2, 2], "versions: evaluation and training of open, then of open2"
    assert main.parse_arguments(["--data_mode=open2", "--fresh=0.5"]).data_mode == "open2"


def test_flags_of_the_engine_need_its_data_mode(capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(["--data_mode=h36m", "--open_data=x"])
    assert "--data_mode=open" in capsys.readouterr().err


# --- on disk


def test_a_rendered_data_set_holds_the_streams_labels(body, tmp_path):
    assert render_dataset.main(["--out", str(tmp_path), "--num=3", "--seed=5"]) == 0
    stored, mesh = TsvDataset(tmp_path / "train.yaml"), HumanMesh(tmp_path / "train.yaml", False)
    stream = rendered_stream(body)
    assert len(stored) == 3
    for index in range(3):
        label, expected = Label.parse(stored.label(index), ""), stream.sample(index)
        assert stored.key(index) == expected["key"]
        assert stored.size(index) == (PHOTO_SIZE, PHOTO_SIZE)
        for name in ("pose", "betas"):
            np.testing.assert_allclose(getattr(label, name), expected[name], atol=1e-6)
        keypoints = label.joints_2d[list(KEYPOINTS_FROM_ANNOTATION)]
        place = (expected["keypoints_2d"][:, :2].numpy() + 1) / 2 * CROP_SIZE + MARGIN - 0.5
        np.testing.assert_allclose(keypoints[:, :2], place, atol=1e-3)
        np.testing.assert_array_equal(keypoints[:, 2], expected["keypoints_2d"][:, 2])
        pelvis = label.joints_3d[ANNOTATION_NAMES.index("Pelvis"), :3]
        centred = label.joints_3d[list(KEYPOINTS_FROM_ANNOTATION), :3] - pelvis
        np.testing.assert_allclose(centred, expected["keypoints_3d"][:, :3], atol=1e-6)
        read = mesh[index]
        assert (read["image"] - expected["image"]).abs().mean() < 0.05, "the same picture"
        step = (read["keypoints_2d"] - expected["keypoints_2d"])[:, :2].abs().max()
        assert step <= 2 / CROP_SIZE + 1e-4, "the published rounding to whole pixels"


def test_rendering_is_reproducible_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(render_dataset, "PART", 2)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, workers in ((first, 0), (second, 2)):
        flags = ["--out", str(folder), "--num=3", f"--num_workers={workers}"]
        assert render_dataset.main(flags) == 0

    def files(folder) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    tables = files(first / "train")
    assert len(tables) == 2 * 9 and files(second / "train") == tables
    for name in tables:
        assert (first / "train" / name).read_bytes() == (second / "train" / name).read_bytes()
    kept = (second / "train" / "seed0_0000_2.yaml").stat().st_mtime_ns
    (second / "train" / "seed0_0001_1.yaml").unlink()
    assert render_dataset.main(["--out", str(second), "--num=3", "--num_workers=0"]) == 0
    assert (second / "train" / "seed0_0000_2.yaml").stat().st_mtime_ns == kept
    assert files(second / "train") == tables


def test_the_validation_set_is_stored_as_it_is_evaluated(body, tmp_path):
    assert render_dataset.main(["--out", str(tmp_path), "--split=val", "--num_workers=0"]) == 0
    stored, expected = TsvDataset(tmp_path / "val.yaml"), engine_stream.validation_set(body)
    assert len(stored) == len(expected) == NUM_VALIDATION
    pose = Label.parse(stored.label(1), "").pose
    np.testing.assert_allclose(pose, expected[1]["pose"], atol=1e-6)


def test_training_from_disk_runs(tmp_path):
    assert render_dataset.main(["--out", str(tmp_path / "data"), "--num=2"]) == 0
    flags = (f"--open_data={tmp_path / 'data'}", "--batch_size=2", "--num_epochs=1")
    assert run(tmp_path, *flags, "--exp_name=disk", "--eval_epochs=9") == 0
    state = load_checkpoint(tmp_path / "disk" / "checkpoints" / "last.pt")
    assert state["num_samples"] == 2 and state["global_iter"] == 1


def test_an_augmented_stream_is_not_stored(body):
    stream = engine_stream.SyntheticPeople(body)
    with pytest.raises(ValueError, match="augment=False"):
        RenderedPhotos(stream, body.annotation_regressor, 0, 1)


def test_a_contact_sheet_shows_the_first_samples(body, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    assert render_dataset.main(["--contact_sheet", str(sheet), "--num=3", "--seed=5"]) == 0
    image = cv2.cvtColor(cv2.imread(str(sheet)), cv2.COLOR_BGR2RGB)
    tile = render_dataset.TILE
    assert image.shape == (tile, 3 * tile, 3)
    expected = rendered_stream(body).sample(1)["image"].permute(1, 2, 0).numpy()
    expected = cv2.resize(255 * expected, (tile, tile), interpolation=cv2.INTER_AREA)
    assert np.abs(image[:, tile : 2 * tile] - expected).mean() < 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --out DIR or --contact_sheet"),
        (["--out=x"], "--num is None"),
        (["--out=x", "--num=0"], "'0' is not a whole number from 1"),
        (["--contact_sheet=x.png"], "must end with .jpg"),
    ],
    ids=["nothing", "how many", "none", "name"],
)
def test_mistakes_of_render_dataset_give_one_sentence(
    flags, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    try:
        code = render_dataset.main(flags)
    except SystemExit as stop:  # the parser's
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0], error
