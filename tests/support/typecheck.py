"""Check types, as `make lint` does: python -m tests.support.typecheck [ROOM ...].

The checker is ty: it takes two seconds for the whole project, and reads jaxtyping's annotations as
the tensors and arrays that they describe, without a plugin.

In a checkout the package `smpler` finds its rooms through `__path__`, which type checkers do not
follow. So ty checks a view: a temporary folder whose links put the rooms inside the package.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from smpler.utils.paths import ROOT

LIMITS = {
    "smpler": 0,
    "utils": 0,
    "models": 0,
    "training": 20,
    "video": 0,
    "apps": 0,
    "datasets": 23,
    "scripts": 33,
    "benchmarks": 49,
    "main.py": 0,
    "demo.py": 0,
    "hubconf.py": 0,
}
"""Room -> how many problems it may have. Numbers only fall; rooms at 0 stay clean."""

UNDEFINED = "[unresolved-reference]"
"""A name that is not defined: never allowed. ruff cannot look for them, as its rule F821 takes the
strings of jaxtyping for names."""
PACKAGE_ROOMS = ("utils", "models", "training", "datasets", "video", "apps")
"""The rooms that are imported as `smpler.ROOM`."""
UNCHECKED = ("tests", "pyproject.toml")
"""In the view, but not checked: `scripts` and `benchmarks` import tests; ty reads its settings."""
USER_DATA = ("smpler/datasets/*", "!smpler/datasets/*.py", "!smpler/datasets/engine/")
"""As in .gitignore: every other folder in datasets/ is the user's."""


class Problem(NamedTuple):
    """One finding of the checker."""

    room: str
    text: str
    """`path:line:column: severity[rule] message`, the path relative to the checkout."""


def find_problems(root: Path, rooms: Iterable[str] = LIMITS) -> list[Problem]:
    """Return all errors and warnings that ty finds in these rooms of a checkout.

    Raises:
        RuntimeError: ty itself failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder).resolve()
        (view / "smpler").mkdir()
        for file in (root / "smpler").glob("*.py"):
            (view / "smpler" / file.name).symlink_to(file)
        for name in {*PACKAGE_ROOMS, *rooms, *UNCHECKED} - {"smpler"}:
            if (root / name).exists():
                (view / _place(name)).symlink_to(root / name)
        command = [sys.executable, "-m", "ty", "check", "--project", view, "--python", sys.prefix]
        command += ["--output-format", "concise", "--color", "never", "--no-progress"]
        command += [f"--exclude={pattern}" for pattern in USER_DATA]
        command += [_place(room) for room in rooms]
        done = subprocess.run(command, cwd=view, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"ty ended with exit code {done.returncode}: {done.stderr}")
    found = re.findall(r"^\S+:\d+:\d+: .*$", done.stdout, flags=re.MULTILINE)
    in_package = re.compile(rf"smpler/(?=({'|'.join(PACKAGE_ROOMS)})/)")
    texts = [in_package.sub("", text, count=1) for text in found]
    return [Problem(re.split("[/:]", text)[0], text) for text in texts]


def _place(name: str) -> str:
    """Return where the view holds a file or folder of the checkout."""
    return f"smpler/{name}" if name in PACKAGE_ROOMS else name


def main() -> int:
    """Print the problems of each room that has too many; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="print all problems of this room")
    asked = parser.parse_args().rooms
    problems = find_problems(ROOT)
    counts = Counter(problem.room for problem in problems)
    too_many = [room for room in counts if counts[room] > LIMITS.get(room, 0)]
    undefined = [problem for problem in problems if UNDEFINED in problem.text]
    for problem in problems:
        if problem.room in (*too_many, *asked) or problem in undefined:
            print(problem.text)
    for room in too_many:
        limit = LIMITS.get(room, 0)
        print(f"Type check: {room} has {counts[room]} problems, {counts[room] - limit} too many.")
    for room, limit in LIMITS.items():
        if counts[room] < limit:
            print(f"Type check: {room} has {counts[room]} problems; lower its limit of {limit}.")
    if undefined:
        print(f"Type check: {len(undefined)} names are not defined, which no room may have.")
    return 1 if too_many or undefined else 0


if __name__ == "__main__":
    sys.exit(main())
