import argparse
import json
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import main
from scripts.make_toy_data import write_all
from smpler.models.body import open_body
from smpler.models.smpler import SMPLerConfig
from smpler.training.checkpoint import load_checkpoint
from smpler.training.lock import NAME, acquire
from tests.support.programs import Done, run
from tests.support.small_main import build_tiny
from tests.support.tsv_data import replace_row, table

NUM_SAMPLES = 5  # of each toy set: neither 2 nor 3 divides it


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_all(folder, num=NUM_SAMPLES)
    return folder


def start(toy: Path, logs: Path, *flags: str, small: bool = False, **kwargs) -> Done:
    program = "tests.support.small_main" if small else "main"
    common = ("--device=cpu", "--num_workers=0", f"--log_root={logs}")
    return run(program, *common, *flags, SMPLER_DATASETS=str(toy), **kwargs)


OTHER_VALUES = {
    "device": "cpu",
    "exp_name": "other",
    "log_root": Path("other"),
    "joint_criterion": "l1",
    "model_type": "backbone",
    "hrnet_type": "w48",
    "data_mode": "3dpw",
    "load_checkpoint": Path("other.pt"),
    "mesh_color": (0.1, 0.2, 0.3),
    "clip_grad": 1.0,
    "backbone": "blazepose-full",
    "supervise": "all",
    "dropout": 0.2,
    "lr_schedule": "cosine",
    "ema": 0.9,
    "minutes": 6.0,
    "cache_features": 8,
    "on_bad_sample": "skip",
    "open_data": Path("other"),
    "amass": Path("other"),
}


def test_every_flag_reaches_the_options_and_the_record():
    asked = vars(main.parse_arguments(["--model_type=smpler"]))
    options = main.options_from(argparse.Namespace(**asked))
    assert json.loads(json.dumps(options.record)).keys() == asked.keys()
    without_effect = set()
    for name, value in asked.items():
        # all others are numbers, and switches that are off
        other = OTHER_VALUES[name] if name in OTHER_VALUES else type(value)(value + 1)
        changed = main.options_from(argparse.Namespace(**asked | {name: other}))
        assert changed.record != options.record, name
        if replace(changed, record=options.record) == options:
            without_effect.add(name)
    assert without_effect == {"device", "timeout_minutes"}, "which start_processes gets"


EVALUATE = ("--eval_only", "--val_batch_size=2", "--data_mode=3dpw")


def test_evaluation_on_one_and_two_processes_is_the_same(toy, tmp_path):
    metrics = []
    for processes in (1, 2):
        flags = (*EVALUATE, f"--exp_name=on{processes}")
        done = start(toy, tmp_path, *flags, processes=processes).check()
        for name in ("mpve: ", "mpjpe: ", "mpjpe-pa: "):
            line = next(line for line in done.output.splitlines() if line.startswith(name))
            assert len(line.split(".")[-1]) == 3, line
        for text in ("body=open", "comparable=False", "start=HRNet from initialisation"):
            assert text in done.output, text
        assert f"samples: {NUM_SAMPLES}, no padding" in done.output
        metrics.append(dict(np.load(tmp_path / f"on{processes}" / "eval_3dpw.npz")))
    one, two = metrics
    assert one["index"].tolist() == two["index"].tolist() == list(range(NUM_SAMPLES))
    assert one["key"].tolist() == two["key"].tolist()
    for name in ("mpve", "mpjpe", "mpjpe-pa"):
        error = np.abs(one[name] - two[name]).max()
        assert error < 1e-6, (name, error)
    check_files(tmp_path / "on1", one)


def check_files(folder: Path, errors: dict[str, np.ndarray]) -> None:
    result = json.loads((folder / "eval_3dpw.json").read_text())
    assert result["metrics"]["mpve"]["samples"] == result["samples"] == NUM_SAMPLES
    assert result["padding"] == "none" and "METRO" in result["protocol"]["rule"]
    setting = result["setting"]
    assert len(setting["body_sha256"]) == len(setting["regressor_sha256"]) == 64
    assert setting["weights"] == "initial parameters"
    row = (folder / "eval_3dpw.md").read_text().splitlines()[2]
    expected = [f"{1000 * errors[name].mean():.1f}" for name in ("mpve", "mpjpe", "mpjpe-pa")]
    assert row.startswith("| 3dpw | initial parameters | open |")
    assert [cell.strip() for cell in row.split("|")[4:7]] == expected, row
    sheet = cv2.imread(str(folder / "eval_3dpw_worst.png"))
    assert sheet.shape == (2 * 240, 4 * 448, 3), "two rows of four, each crop beside its overlay"


MISTAKES = {
    "no such checkpoint": (("--load_checkpoint=nowhere.pt",), "nowhere.pt is missing"),
    "batch too large": (("--batch_size=1000",), "do not fill one batch of 1000"),
    "no gendered bodies": (("--gendered", "--data_mode=3dpw"), "needs the neutral one"),
    "gendered, no gender": (("--gendered",), "--gendered needs --data_mode=3dpw"),
    "folder is a file": (("--log_root={file}",), "Nothing can be written to"),
    "unknown device": (("--device=tpu",), "neither cuda, cuda:NUMBER nor cpu"),
    "unknown mode": (("--data_mode=coco",), "invalid choice: 'coco'"),
    "unknown flag": (("--batchsize=3",), "unrecognized arguments: --batchsize=3"),
    "no number": (("--lr=fast",), "'fast' is not a number"),
    "no batch": (("--batch_size=0",), "'0' is not a whole number from 1"),
    "no time": (("--timeout_minutes=0",), "'0' is not a number above 0"),
    "too long": (("--timeout_minutes=1e9",), "--timeout_minutes 1e+09 is not in 0.01 to 10,000"),
    "decay": (("--ema=1.5",), "'1.5' is not between 0 and 1"),
    "both ways": (("--overwrite", "--auto_load=1"), "--auto_load=1 continues what --overwrite"),
    "two sources": (("--eval_only", "--auto_load=1"), "takes its weights from --load_checkpoint"),
    "no checkpoint at all": (("--load_checkpoint={file}",), "is not a readable checkpoint"),
    "seen again on a CPU": (("--fresh=0.5",), "--fresh below 1 is for people rendered on a GPU"),
    "no share": (("--fresh=1.5",), "'1.5' is not a share above 0, at most 1"),
    "another model": (("--load_checkpoint={other}",), "holds no weights of SMPLer"),
}


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "text.pt").write_text("no checkpoint")
    torch.save({"layer.weight": torch.zeros(3)}, folder / "other.pt")
    return {"file": str(folder / "text.pt"), "other": str(folder / "other.pt")}


def one_sentence(done: Done, message: str) -> None:
    assert set(done.returncodes) == {2}, done
    errors = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0], done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_sentence_and_exit_code_2(name, toy, wrong_files, tmp_path):
    flags, message = MISTAKES[name]
    flags = [flag.format(**wrong_files) for flag in flags]
    one_sentence(start(toy, tmp_path, *flags), message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data_mode=coco",), "invalid choice"),
        (("--eval_only", "--log_root={file}"), "Nothing can be written to"),
        (("--load_checkpoint={other}",), "holds no weights of SMPLer"),
    ],
)
def test_two_processes_say_it_once(flags, message, toy, wrong_files, tmp_path):
    flags = [flag.format(**wrong_files) for flag in flags]
    one_sentence(start(toy, tmp_path, *flags, processes=2), message)


def test_missing_data_is_one_sentence_that_names_the_readme(tmp_path):
    done = start(tmp_path / "nowhere", tmp_path, "--eval_only")
    one_sentence(done, "valid.protocol2.yaml is missing. datasets/README.md says how")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_stops_at_a_bad_row_and_names_it(workers, tmp_path):
    write_all(tmp_path / "toy", num=3)
    replace_row(table(tmp_path / "toy/3dpw/test_has_gender.yaml", "label"), 2, b"k\t[{")
    done = start(tmp_path / "toy", tmp_path, *EVALUATE, f"--num_workers={workers}")
    one_sentence(done, "label.tsv row 2: broken JSON")


def test_without_a_gpu_the_cpu_does_it_and_says_so(toy, tmp_path):
    if torch.cuda.is_available():  # then --device=cuda is no mistake
        pytest.skip("there is a GPU")
    done = start(toy, tmp_path, "--device=cuda", "--batch_size=1000")
    assert "No GPU answers to cuda; the CPU does it." in done.output
    one_sentence(done, "do not fill one batch")


@pytest.mark.slow
def test_two_processes_say_once_that_predictions_are_not_finite(toy, tmp_path):
    config = SMPLerConfig("hrnet-w32", num_blocks=0)
    state = build_tiny(config, open_body()).state_dict()
    state["regressor.betas_head.bias"].fill_(float("nan"))
    torch.save({"model": state, "config": config.to_dict()}, tmp_path / "nan.pt")
    flags = (*EVALUATE, f"--load_checkpoint={tmp_path / 'nan.pt'}", "--exp_name=nan")
    done = start(toy, tmp_path, *flags, processes=2, small=True)
    one_sentence(done, "5 of 5 predictions are not finite")
    assert json.loads((tmp_path / "nan/eval_3dpw.json").read_text())["metrics"] == {}


@pytest.mark.slow
def test_two_processes_say_once_that_a_training_is_running(toy, tmp_path):
    (tmp_path / "run").mkdir()
    acquire(tmp_path / "run" / NAME)
    flags = ("--data_mode=3dpw", "--batch_size=1", "--exp_name=run")
    done = start(toy, tmp_path, *flags, processes=2, small=True)
    one_sentence(done, "is being trained by process")


OPTIONS = {
    "published": (),
    "all": (
        "--model_type=smpler",
        "--num_transformers=1",
        "--num_epochs=1",
        "--bf16",
        "--channels_last",
        "--ema=0.9",
        "--clip_grad=10",
        "--warmup_steps=2",
        "--lr_schedule=cosine",
        "--joint_criterion=l1",
    ),
}


@pytest.mark.parametrize(
    ("options", "processes"), [("published", 2), pytest.param("all", 1, marks=pytest.mark.slow)]
)
def test_a_killed_run_continues_exactly(options, processes, toy, tmp_path):
    """Killed in mid-epoch, with 2 loading processes each; then --auto_load=1."""
    flags = ("--data_mode=3dpw", "--batch_size=1", "--num_epochs=2", "--num_workers=2")
    flags += ("--save_steps=1", "--auto_load=1", "--eval_epochs=9", *OPTIONS[options])
    last = tmp_path / "cut" / "checkpoints" / "last.pt"
    num_steps = (1 if options == "all" else 2) * (NUM_SAMPLES // processes)

    def train(name: str, **kwargs) -> Done:
        name = f"--exp_name={name}"
        return start(toy, tmp_path, *flags, name, processes=processes, small=True, **kwargs)

    train("whole").check()
    died = train("cut", kill_when=last.is_file)
    assert died.returncodes[0] == -signal.SIGKILL, died
    assert load_checkpoint(last)["global_iter"] < num_steps, "killed before the end"
    assert "Continuing" in train("cut").check().output
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "cut")
    )
    assert first["global_iter"] == second["global_iter"] == num_steps
    for part in ("model", "trained") if options == "all" else ("model",):
        for name, value in first[part].items():
            assert value.equal(second[part][name]), (part, name)
