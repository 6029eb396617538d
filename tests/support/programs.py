"""Run one of our programs in fresh processes, as a launcher would, but start them faster.

They are forked from a server that has imported everything and done nothing else.
`tests/test_published_commands.py` uses the real launchers.
"""

import importlib
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smpler.utils.paths import ROOT

PRELOADED = ["main", "tests.support.small_main", "tests.support.tiny_training", "torch._dynamo"]
PRELOADED += ["tensorboardX", "smpler.datasets.engine.stream"]
"""Modules that the server imports: main's, also its late ones, and torch._dynamo for optimizers."""
GRACE_S = 30
"""How long the others may live on after one process has failed."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Done:
    """How the processes of a program ended, in order of ranks."""

    returncodes: tuple[int, ...]
    outputs: tuple[str, ...]
    """Standard output and error together."""

    @property
    def output(self) -> str:
        return "".join(self.outputs)

    def check(self) -> "Done":
        assert not any(self.returncodes), (self.returncodes, self.output[-3000:])
        return self


def run(
    program: str,
    *arguments,
    processes: int = 1,
    timeout: float = 120,
    kill_when: Callable[[], bool] = lambda: False,
    **environment: str,
) -> Done:
    """Call the program's `main()` with arguments as of the command line.

    Args:
        kill_when: called again and again; once it returns True, the first process gets SIGKILL.
        environment: environment variables.
    """
    argv = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(processes)]
        launched = [
            _context.Process(target=_child, args=(program, argv, variables | environment, file))
            for file, variables in zip(files, _ranks(processes), strict=True)
        ]
        for process in launched:
            process.start()
        _wait(launched, timeout, kill_when)
        codes = tuple(process.exitcode for process in launched)
        return Done(codes, tuple(file.read_text(errors="replace") for file in files))


def _child(program: str, argv: list[str], environment: dict[str, str], file: Path) -> None:
    with file.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(environment)
    os.chdir(ROOT)
    multiprocessing.set_start_method("fork", force=True)  # for loading processes, as by default
    sys.argv = [program, *argv]
    importlib.import_module("torch").set_num_threads(1)
    sys.exit(importlib.import_module(program).main())


def _ranks(count: int) -> list[dict[str, str]]:
    """Return the variables that a launcher sets; none for a single process."""
    if count == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _wait(launched: list, timeout: float, kill_when: Callable[[], bool]) -> None:
    """Wait for all processes; when one fails, end the others soon, as torchrun does."""
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in launched):
        if kill_when():
            launched[0].kill()
        if any(process.exitcode for process in launched):
            end = min(end, time.monotonic() + GRACE_S)
        if time.monotonic() > end:
            for process in launched:
                process.kill()
        for process in launched:
            process.join(0.05)
