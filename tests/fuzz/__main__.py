"""Reads damaged files for minutes: python -m tests.fuzz.

Each reader has processes of its own, one after the other, so that one that is ended by a signal or
stands still is only counted. Every file that made a fault is kept.
"""

import argparse
import faulthandler
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.harness import Reader, damaged, fault_of, whole_files, whole_values

MODULES = ("arrays", "pickles", "checkpoints", "photos", "texts", "networks", "motions", "clips")
LEAST_SECONDS = 5.0
"""Of a process; all readers together take the time that is given, if it lasts."""
HANG = 30.0
"""Seconds without a file after which a process stands still."""
MEMORY = 5 * 2**30
"""Bytes that a process may reserve beyond what libraries do; 2 GiB of them may be arrays."""
BATCH = 200
"""Files that Hypothesis draws at a time."""


def readers() -> dict[str, Reader]:
    """Return all readers by name."""
    found = {}
    for name in MODULES:
        for reader in importlib.import_module(f"tests.fuzz.test_{name}").READERS:
            assert reader.name not in found, reader.name
            found[reader.name] = reader
    return found


def main() -> int:
    """Run; return 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=10, help="in all")
    add("--processes", type=int, default=2, help="at a time")
    add("--only", help="readers whose names hold this")
    add("--seed", type=int, default=int(time.time()), help="of the files")
    add("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(json.loads(arguments.work))
        return 0
    names = [name for name in readers() if (arguments.only or "") in name]
    kept = Path(tempfile.mkdtemp(prefix="smpler-fuzz-"))
    print(f"{len(names)} readers, seed {arguments.seed}, faults in {kept}", flush=True)
    end = time.monotonic() + 60 * arguments.minutes
    # a tenth is for the start and end of processes
    turn = max(LEAST_SECONDS, 54 * arguments.minutes * arguments.processes / len(names))
    tallies = {name: {"files": 0, "refused": 0, "seconds": 0.0, "memory": 0} for name in names}
    faults = []

    def rounds(first: int) -> None:
        """Let every PROCESSES-th reader work, again and again."""
        number = first
        while time.monotonic() < end or number < len(names):
            name = names[number % len(names)]
            left = max(LEAST_SECONDS, end - time.monotonic())
            faults.extend(
                _supervise(name, arguments.seed + number, kept, tallies[name], min(turn, left))
            )
            number += arguments.processes

    # so that both processes come to each reader
    if len(names) % arguments.processes == 0 and len(names) > 1:
        names.append(names[0])
    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(rounds, range(arguments.processes)))
    show(tallies, faults)
    return 1 if faults else 0


def show(tallies: dict[str, dict], faults: list[dict]) -> None:
    """Print the table and the faults."""
    print("| reader | files | refused | faults | slowest [s] | memory [MB] |")
    print("|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        count = sum(fault["reader"] == name for fault in faults)
        print(
            f"| {name} | {tally['files']} | {tally['refused']} | {count} | "
            f"{tally['seconds']:.2f} | {tally['memory'] / 1e6:.0f} |"
        )
    print(f"{sum(tally['files'] for tally in tallies.values())} files, {len(faults)} faults")
    for fault in faults:
        print(f"{fault['reader']}: {fault['fault']} -> {fault['kept']}")


def _supervise(name: str, number: int, kept: Path, tally: dict, turn: float) -> list[dict]:
    """Run one process of a reader; return its faults."""
    folder = Path(tempfile.mkdtemp(dir=kept))
    task = {"reader": name, "seed": number, "folder": str(folder), "end": time.time() + turn}
    command = [sys.executable, "-m", "tests.fuzz", "--work", json.dumps(task)]
    with open(folder / "said.txt", "wb") as file:  # a pipe that nobody reads becomes full
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    fault = None
    beat = folder / "beat"
    started = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        age = time.time() - beat.stat().st_mtime if beat.exists() else time.monotonic() - started
        if age > HANG:
            process.kill()
            fault = f"it stood still for {HANG:.0f} s"
            break
    process.wait()
    if process.returncode and fault is None:
        said = (folder / "said.txt").read_text(errors="replace")[-300:]
        fault = f"the process ended with {process.returncode}: {said}"
    faults = []
    if (folder / "tally.json").exists():
        found = json.loads((folder / "tally.json").read_text())
        tally["files"] += found["files"]
        tally["refused"] += found["refused"]
        tally["seconds"] = max(tally["seconds"], found["seconds"])
        tally["memory"] = max(tally["memory"], found["memory"])
        faults = found["faults"]
    if fault is not None:
        last = next((path for path in folder.glob("x.*") if path.is_file()), folder)
        kept_as = last.with_name(f"last{last.suffix}")
        if last.is_file():
            last.rename(kept_as)
        faults.append({"reader": name, "fault": fault, "kept": str(kept_as)})
    if not faults:
        shutil.rmtree(folder, ignore_errors=True)
    for found in faults:
        print(f"fault: {found}", flush=True)
    return faults


def work(task: dict) -> None:
    """Read damaged files until the time is over."""
    faulthandler.enable()
    reader, folder = readers()[task["reader"]], Path(task["folder"])
    whole_values(reader)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tally: dict = {"files": 0, "refused": 0, "seconds": 0.0, "memory": 0, "faults": []}
    path = folder / f"x{reader.suffix}"
    known = set()

    def check(content: bytes) -> None:
        if time.time() > task["end"]:
            return
        (folder / "beat").touch()
        path.write_bytes(content)
        start = time.process_time()
        fault, was_refused = fault_of(reader, path)
        tally["files"] += 1
        tally["refused"] += was_refused
        tally["seconds"] = max(tally["seconds"], time.process_time() - start)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base
        tally["memory"] = max(tally["memory"], memory)
        if fault is not None and fault[:60] not in known:
            known.add(fault[:60])
            place = folder / f"fault_{len(known)}{reader.suffix}"
            place.write_bytes(content)
            tally["faults"].append({"reader": reader.name, "fault": fault, "kept": str(place)})

    number = 0
    while time.time() < task["end"]:
        number += 1
        given_files = given(damaged(whole_files(reader)))(lambda content: check(content))
        options = settings(
            max_examples=BATCH,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(1000 * task["seed"] + number)(options(given_files))()
        (folder / "tally.json").write_text(json.dumps(tally))


if __name__ == "__main__":
    sys.exit(main())
