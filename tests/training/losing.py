"""main.py on a tiny backbone, one of whose processes is lost at a chosen moment; and the others.

`LOSE=RANK,WHERE,COUNT,SIGNAL`: the process of that rank gets the signal at that call of WHERE:
`gather` (main.py then does nothing but gather), `train` (after a step), `evaluation` (of a batch)
or `loader` (in a loading process, as it reads a sample).
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import get_worker_info

import main as program
from smpler.datasets.human_mesh import HumanMesh
from smpler.training import engine
from smpler.training.distributed import Processes
from smpler.training.trainer import Trainer
from smpler.training.waiting.waits import leave
from smpler.utils.launcher import launched_rank
from tests.support import programs, small_main

PLACES = {
    "gather": (Processes, "gather"),
    "train": (Trainer, "_after_step"),
    "evaluation": (engine, "predict"),
    "loader": (HumanMesh, "load"),
}


def main() -> int:
    """Run the small main.py until this process is lost."""
    rank, place, count, number = os.environ["LOSE"].split(",")
    if place == "gather":
        program.run = gather_for_ever
    if int(rank) == launched_rank():
        lose_at(*PLACES[place], int(count), int(number), in_loader=place == "loader")
    return small_main.main()


def gather_for_ever(_, processes: Processes) -> None:
    """Stand in for main.py's `run`."""
    while True:
        processes.gather(processes.rank)


def lose_at(home: object, name: str, count: int, number: int, in_loader: bool) -> None:
    """Send this process a signal after a call of a function."""
    function, calls = getattr(home, name), [0]

    def counted(*args, **kwargs):
        answer = function(*args, **kwargs)
        if (get_worker_info() is not None) == in_loader:
            calls[0] += 1
            if calls[0] == count:
                Path(os.environ["LOST_AT"]).write_text(repr(time.time()))
                os.kill(os.getpid(), number)
        return answer

    setattr(home, name, counted)


@dataclass(frozen=True)
class Ended:
    """How a process ended that was not lost."""

    code: int | None
    """None: not by itself."""
    seconds: float
    """After the loss; after the start where nobody is lost in between."""
    output: str


def run(
    *arguments: str,
    folder: Path,
    processes: int,
    absent: tuple[int, ...] = (),
    lost: int | None = None,
    patience_s: float = 40.0,
    **environment: str,
) -> dict[int, Ended]:
    """Start main.py on several processes, and see how those end that are not lost.

    Args:
        arguments: main.py's.
        folder: for outputs and results.
        absent: processes that never come.
        lost: the process that gets the signal.
        patience_s: how long the others may live on.
    """
    stamp, common = folder / "lost_at", ("--device=cpu", f"--log_root={folder}")
    environment |= {"LOST_AT": str(stamp)}
    launched, ended, start = {}, {}, time.time()
    for rank, variables in enumerate(programs._ranks(processes)):
        if rank not in absent:
            launched[rank] = programs._context.Process(
                target=programs._child,
                args=(
                    "tests.training.losing",
                    [*common, *arguments],
                    variables | environment,
                    folder / f"output{rank}",
                ),
            )
            launched[rank].start()
    others = launched.keys() - {lost}
    while others - ended.keys():
        since = float((stamp.exists() and stamp.read_text()) or start)
        for rank in others - ended.keys():
            if launched[rank].exitcode is not None or time.time() > since + patience_s:
                ended[rank] = launched[rank].exitcode, time.time() - since
        time.sleep(0.02)
    for process in launched.values():
        process.kill()
        process.join()
    return {
        rank: Ended(*ended[rank], (folder / f"output{rank}").read_text(errors="replace"))
        for rank in sorted(ended)
    }


if __name__ == "__main__":
    leave(main)
