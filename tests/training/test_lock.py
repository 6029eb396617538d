import json
import os
import socket

import pytest

from smpler.training.checkpoint import load_checkpoint
from smpler.training.lock import NAME, acquire, release
from tests.training.test_evaluator import one_error, run, toy

__all__ = ["run", "toy"]  # fixtures
TRAIN = ("--exp_name=run", "--batch_size=2", "--num_epochs=1", "--eval_epochs=9")


def owner(**changes) -> str:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": ""} | changes)


def acquired_by_another(path) -> bool:
    """Let another process try to take the lock; it dies at once."""
    pid = os.fork()
    if pid == 0:
        try:
            acquire(path)
        except ValueError:
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lock_lets_nobody_else_in_until_it_is_released(tmp_path):
    path = tmp_path / NAME
    acquire(path)
    assert not acquired_by_another(path)
    release(path)
    assert not path.exists()
    assert acquired_by_another(path) and path.exists()
    assert acquired_by_another(path), "the first died without releasing it"
    release(path)
    assert path.exists(), "it is not this process's"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", owner(), owner(pid=2**40), owner(pid="x")],
    ids=["empty", "cut off", "no owner", "another start", "no such process", "no number"],
)
def test_a_lock_of_a_dead_process_is_taken_over(content, tmp_path):
    """Cut off; the number of a dead process that another process has now; no process."""
    (tmp_path / NAME).write_text(content)
    acquire(tmp_path / NAME)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_lock_of_another_machine_is_kept_and_named(tmp_path):
    (tmp_path / NAME).write_text(owner(host="elsewhere", pid=7))
    with pytest.raises(ValueError, match=f"by process 7 on elsewhere.*delete .*{NAME}"):
        acquire(tmp_path / NAME)


def test_a_second_training_of_a_running_name_is_refused_an_evaluation_is_not(run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    acquire(tmp_path / "run" / NAME)
    assert run(*TRAIN) == 2
    assert "is being trained by process" in one_error(capsys)
    assert run("--exp_name=run", "--eval_only") == 0
    assert (tmp_path / "run" / NAME).is_file(), "neither removes another's lock"


def test_a_new_training_over_an_older_one_must_be_asked_for(run, tmp_path, capsys):
    checkpoints = tmp_path / "run" / "checkpoints"
    assert run(*TRAIN) == 0
    assert not (tmp_path / "run" / NAME).exists()
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    capsys.readouterr()
    assert run(*TRAIN) == 2
    error = one_error(capsys)
    assert "--auto_load 1" in error and "--overwrite" in error, error
    assert before == {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    (checkpoints / "epoch_077.pt").write_bytes(before["last.pt"])
    assert run(*TRAIN, "--overwrite", "--seed=5") == 0
    assert {path.name for path in checkpoints.iterdir()} == set(before), "no checkpoint of two runs"
    assert load_checkpoint(checkpoints / "last.pt")["seed"] == 5
    (checkpoints / "last.pt").unlink()
    capsys.readouterr()
    assert run(*TRAIN, "--auto_load=1") == 2
    assert "no last.pt to continue from" in one_error(capsys)
