"""Processes that others wait for are killed, stopped or never come."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from smpler.datasets import PROTOCOLS
from smpler.training.distributed import start_processes
from smpler.training.waiting import waits as module
from smpler.training.waiting.lifeline import Lifeline, Loss
from smpler.training.waiting.waits import LostProcess, Waits, end_with_parent
from smpler.utils.paths import ROOT
from tests.support import programs
from tests.support.tsv_data import write_random_set
from tests.training.losing import Ended, run

KILL, STOP = int(signal.SIGKILL), int(signal.SIGSTOP)
SHORT = "--timeout_minutes=0.02"


def check_sentence(ended: dict[int, Ended], *words: str, within_s: float = 20.0) -> None:
    """One sentence on each of the others, exit code 2, in time."""
    for rank, end in ended.items():
        errors = [line for line in end.output.split("\n") if "Error: " in line]
        assert end.code == 2 and len(errors) == 1, (rank, end)
        assert all(word in errors[0] for word in words), (rank, errors[0])
        assert "Traceback" not in end.output and end.seconds < within_s, (rank, end)


@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_process_is_killed_the_others_say_which_and_end(lost, tmp_path):
    ended = run(folder=tmp_path, processes=3, lost=lost, LOSE=f"{lost},gather,3,{KILL}")
    assert len(ended) == 2
    check_sentence(ended, f"Process RANK={lost} of 3 ended", "--auto_load=1")


def test_a_process_that_does_not_answer_is_waited_for_so_long(tmp_path):
    lose = f"1,gather,3,{STOP}"
    limit = "--timeout_minutes=0.04"
    ended = run(limit, folder=tmp_path, processes=2, lost=1, LOSE=lose)
    check_sentence(ended, "Process RANK=1 of 2 did not answer within 0.04 min (--timeout_minutes)")
    assert ended[0].seconds > 2.3, ended[0]


@pytest.mark.parametrize("absent", [0, 1])
def test_a_process_that_never_comes_is_waited_for_so_long_and_said_before(absent, tmp_path):
    lose = f"{absent},gather,1,{KILL}"
    ended = run(SHORT, folder=tmp_path, processes=2, absent=(absent,), LOSE=lose)
    check_sentence(ended, f"Process RANK={absent} of 2 did not come to 127.0.0.1:", "0.02 min")
    (end,) = ended.values()
    waiting = "2 processes" if absent else "process RANK=0"
    assert end.output.startswith(f"Waiting for {waiting} at 127.0.0.1:"), end


class Killed(Dataset):
    """Its loading process is killed; or it stands still."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, _: int) -> int:
        os.kill(os.getpid(), KILL)


def test_a_killed_loading_process_is_one_sentence():
    loader = DataLoader(Killed(), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(LostProcess, match="killed by signal: Killed.*--num_workers"):
        with start_processes("cpu") as processes:
            list(processes.waits.each(loader, num_workers=1))


def test_an_error_of_a_programmer_keeps_its_traceback():
    for text in ("Timed out waiting", "Connection closed by peer", "shapes do not fit"):
        with pytest.raises(RuntimeError, match=text), start_processes("cpu"):
            raise RuntimeError(text)
    assert Waits(world_size=2).explained(RuntimeError("Timed out waiting")) is None
    assert Waits(world_size=2).explained(RuntimeError("gloo: shapes do not fit")) is None
    late = RuntimeError("Application timeout caused pair closure")  # all that gloo says of it
    assert "did not answer" in str(Waits(world_size=2).explained(late))


@pytest.mark.parametrize("regular", [True, False])
def test_a_lifeline_tells_a_loss_from_a_regular_end_and_hears_no_strangers(regular):
    store = dist.HashStore()
    first, second = Lifeline(0, 2), Lifeline(1, 2)
    first.open(store, "")
    port = int(store.get("lifeline").split()[0])
    for greeting in (b"\xff\xfe 1\n", b"token 1\n", b"\n", 200 * b"x", b""):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(greeting)
    second.open(store, "127.0.0.1")
    until = time.monotonic() + 10
    while not first._others and time.monotonic() < until:
        time.sleep(0.01)
    second.close(regular)
    assert first.lost.wait(0.2 if regular else 10) != regular
    assert first.loss == (None if regular else Loss((1,), ended=True))
    assert second.loss is None, "its own end is no loss"
    first.close(regular=True)


@pytest.fixture
def watched(monkeypatch):
    """Return waits that note their end instead of ending the process, and that note."""
    noted = threading.Event()
    monkeypatch.setattr(module, "end_process", lambda code: noted.set())
    waits = Waits(0.1, rank=0, world_size=2)
    waits.grace_s = 0.0
    waits.start()
    yield waits, noted
    waits.stop(regular=True)


def test_a_wait_that_is_too_long_ends_and_own_work_does_not(watched, caplog):
    waits, noted = watched
    assert not noted.wait(0.3), "nothing is waited for"
    with waits.bounded():
        with waits.paused():
            assert not noted.wait(0.3), "this process works"
        waits.limit_s = 0.6
        for _ in waits.each(range(5), num_workers=0):
            assert not noted.wait(0.15), "batches come"
        assert noted.wait(5)
    assert "Process RANK=1 of 2 did not answer" in caplog.text


def test_a_loading_process_that_stands_still_is_bounded_in_a_single_process_too(watched, caplog):
    waits, noted = watched
    waits.world_size = 1
    with waits.bounded():
        assert not noted.wait(0.3), "of one process, nobody waits for another"
    list(waits.each((noted.wait(3) for _ in range(1)), num_workers=1))
    assert noted.is_set()
    assert "gave no batch within 0.00166667 min (--timeout_minutes)" in caplog.text


def test_a_loading_process_ends_with_the_one_that_it_loads_for():
    if sys.platform != "linux":
        pytest.skip("elsewhere it ends some seconds later")
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            end_with_parent(0)
            os.write(writing, b"!")
            time.sleep(30)
        time.sleep(30)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    start = time.monotonic()
    assert os.read(reading, 1) == b"", "nobody holds the other end"
    assert time.monotonic() - start < 5
    os.close(reading)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("worker (pid 7) is killed by signal: Killed. ", "killed by signal: Killed"),
        ("worker (pid 7) is killed by signal: Bus error. It is", "killed by signal: Bus error"),
        ("worker (pid 7) exited unexpectedly with exit code 1. D", "unexpectedly with exit code 1"),
        ("worker (pid(s) 7, 8) exited unexpectedly", "(exited unexpectedly)"),
    ],
    ids=["killed", "bus error", "exit code", "several"],
)
def test_the_end_of_a_loading_process_is_told_in_torchs_words(text, how):
    assert how in str(Waits().explained(RuntimeError(f"DataLoader {text}")))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("toy")
    for path in (PROTOCOLS["3dpw"].evaluate, PROTOCOLS["3dpw"].train):
        write_random_set(folder / path, num=12)
    return str(folder)


TRAIN = ("--data_mode=3dpw", "--batch_size=1", "--num_epochs=3", "--save_steps=2")
EVALUATE = ("--eval_only", "--data_mode=3dpw", "--val_batch_size=1")
LOSSES = {
    "3, rank 0 in training": (3, f"0,train,2,{KILL}", TRAIN, 2),
    "3, rank 2 in training": (3, f"2,train,2,{KILL}", TRAIN, 0),
    "3, rank 1 in evaluation": (3, f"1,evaluation,2,{KILL}", EVALUATE, 2),
    "2, rank 0 in evaluation": (2, f"0,evaluation,2,{KILL}", EVALUATE, 0),
    "3, rank 1 stopped": (3, f"1,train,2,{STOP}", (*TRAIN, "--timeout_minutes=0.1"), 0),
    "2, a loader of rank 1": (2, f"1,loader,3,{KILL}", TRAIN, 2),
    "1, a loader": (1, f"0,loader,3,{KILL}", TRAIN, 2),
    "1, a loader stopped": (1, f"0,loader,3,{STOP}", (*TRAIN, "--timeout_minutes=0.05"), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_main_ends_with_a_sentence_when_a_process_is_lost(name, toy, tmp_path):
    processes, lose, flags, workers = LOSSES[name]
    rank, is_loader = int(lose[0]), "loader" in lose
    ended = run(
        *flags,
        f"--num_workers={workers}",
        folder=tmp_path,
        processes=processes,
        lost=None if is_loader else rank,
        LOSE=lose,
        SMPLER_DATASETS=toy,
    )
    if is_loader:
        check_sentence({rank: ended.pop(rank)}, "loading process", within_s=30)
    how = "did not answer" if str(STOP) in lose else "ended"
    check_sentence(ended, f"Process RANK={rank} of {processes} {how}", within_s=30)


@pytest.mark.slow
def test_the_interpreter_ends_soon_after_an_error_of_a_programmer(tmp_path):
    """Its traceback is there, and nobody waits for connections that were left open."""
    program = (
        "import main; from smpler.training.waiting.waits import leave\n"
        "main.run = lambda options, processes: processes.gather(0) and "
        "(1 / 0 if processes.rank == 1 else processes.gather(0))\n"
        "leave(main.main)\n"
    )
    start, launched = time.monotonic(), []
    for variables in programs._ranks(2):
        command = [sys.executable, "-c", program, "--device=cpu"]
        with (tmp_path / variables["RANK"]).open("wb") as output:
            environment = os.environ | variables
            launched.append(
                subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
            )
    assert [process.wait(60) for process in launched] == [2, 1]
    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert "Process RANK=1 of 2 ended" in first and "Traceback" not in first, first
    assert "ZeroDivisionError" in second, second
    assert time.monotonic() - start < 50
