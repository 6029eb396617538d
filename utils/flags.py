"""What the command lines of all programs share.

Types of flags; a parser whose errors are one sentence, and which tries the files and folders that
the flags name before hours of work; and the end of a program after a user's mistake.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec

from smpler.utils import paths
from smpler.utils.launcher import check_launcher, launched_rank

LARGEST = 2**31 - 1
"""Counts and seeds up to which torch and numpy agree."""
DEVICES = "cuda, cuda:NUMBER, mps, xpu or cpu"
Arguments = ParamSpec("Arguments")


def program(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a program's `main`: a user's mistake ends it with one sentence and exit code 2.

    `python -X dev -m PROGRAM` shows the traceback of it.
    """

    @functools.wraps(main)
    def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> int:
        try:
            return main(*arguments, **named)
        except KeyboardInterrupt:
            said, code = "Stopped.", 130
        except (OSError, ValueError, ImportError, FloatingPointError) as error:
            if sys.flags.dev_mode:
                raise
            said, code = f"Error: {sentence(error)}", 2
        except (MemoryError, RuntimeError) as error:  # torch has several errors, all of the latter
            is_full = "allocate memory" in str(error) or "out of memory" in str(error)
            if sys.flags.dev_mode or not (is_full or isinstance(error, MemoryError)):
                raise
            said, code = "Error: the memory is full; ask for less at once.", 2
        print(said, file=sys.stderr)
        return code

    return run


def sentence(error: Exception) -> str:
    """Return what an error says, in one line: the system's with its file, a worker's last line.

    Args:
        error: a user's mistake, or of a file.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{paths.display(str(error.filename))}: {error.strerror}."
    text = str(error).strip() or type(error).__name__
    if not text.startswith("Caught "):
        return " ".join(line.strip() for line in text.splitlines())
    return text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, printed by the first process alone.

    It tries the files and folders of flags that have one of the types `input_file` to
    `output_folder`, defaults as well.
    """

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        module = getattr(sys.modules["__main__"], "__spec__", None)
        if named.get("prog") is None and module is not None:
            self.prog = f"python -m {module.name.removesuffix('.__main__')}"

    def parse_known_args(self, args=None, namespace=None):
        """Read the command line, then try its files and folders.

        Raises:
            OSError: one cannot be used; the message names the flag.
        """
        try:
            check_launcher()
        except ValueError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions if not rest else ():
            value = getattr(found, action.dest, None)
            if action.type in TRIALS and value is not None:
                for path in value if isinstance(value, (list, tuple)) else [value]:
                    _try(action, path)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line, and exit with code 2."""
        if launched_rank() == 0:
            program = f"python {self.prog}" if self.prog.endswith(".py") else self.prog
            text = f"Error: {message.rstrip('.')}. `{program} --help` lists all flags."
            print(text, file=sys.stderr)
        sys.exit(2)


def _try(action: argparse.Action, path: Path) -> None:
    """Try the file or folder of a flag, as its type says."""
    try:
        TRIALS[action.type](path)
    except OSError as error:
        name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
        raise OSError(f"{name}: {sentence(error)}") from error


def input_file(text: str) -> Path:
    """Return the path of a file that can be read."""
    return Path(text)


def weights_file(text: str) -> Path:
    """Return the path of a file of weights, or `init`, which stands for untrained ones."""
    return Path(text)


def input_folder(text: str) -> Path:
    """Return the path of a folder that is there."""
    return Path(text)


def input_path(text: str) -> Path:
    """Return the path of a file or folder that is there."""
    return Path(text)


def output_file(text: str) -> Path:
    """Return the path of a file that can be written; an older one stays until then."""
    return Path(text)


def output_png(text: str) -> Path:
    """Return the path of a PNG file that can be written."""
    return _with_suffix(text, ".png")


def output_jpeg(text: str) -> Path:
    """Return the path of a JPEG file that can be written."""
    return _with_suffix(text, ".jpg", ".jpeg")


def output_folder(text: str) -> Path:
    """Return the path of a folder that can be written to; it is made if it is not there."""
    return Path(text)


def _with_suffix(text: str, *suffixes: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"{text!r} must end with {' or '.join(suffixes)}")
    return path


TRIALS: dict[object, Callable[[Path], object]] = {
    input_file: paths.require_file,
    weights_file: lambda path: path == Path("init") or paths.require_file(path),
    input_folder: paths.require_folder,
    input_path: paths.require_any,
    output_file: paths.prepare_file,
    output_png: paths.prepare_file,
    output_jpeg: paths.prepare_file,
    output_folder: paths.prepare_folder,
}
"""Type of a flag -> what tries the path, and raises OSError."""


def device_name(text: str) -> str:
    """Return the name of a device that torch computes on here, such as `cuda:1`."""
    try:
        if is_there(text):
            return text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    kind = "GPU" if text.startswith("cuda") else "device"
    raise argparse.ArgumentTypeError(f"no {kind} answers to {text}; use --device cpu")


def is_there(name: str) -> bool:
    """Say whether a device answers torch on this machine.

    Raises:
        ValueError: it is the name of none, or of one on which our programs do not run.
    """
    import torch  # here, as not every program needs it

    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    counts = {"cpu": lambda: 1, "cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
    counts["mps"] = lambda: int(torch.backends.mps.is_available())
    if found is None or found.type not in counts:
        raise ValueError(f"{name} is no device; use {DEVICES}")
    return (found.index or 0) < counts[found.type]()


def whole(text: str) -> int:
    """Return a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    if len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is above {LARGEST}")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isdecimal() or whole(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def port(text: str) -> int:
    """Return a number of a port, 0 to 65535."""
    if whole(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports go from 0 to 65535")
    return int(text)


def weight(text: str) -> float:
    """Return a finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value


def above_zero(text: str) -> float:
    """Return a finite number above 0."""
    if not weight(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return float(text)


def frame_rate(text: str) -> float:
    """Return frames a second, 0.1 to 1000."""
    if not 0.1 <= weight(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0.1 to 1000 frames a second")
    return float(text)


def decay(text: str) -> float:
    """Return a number between 0 and 1."""
    if not 0 < weight(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1, such as 0.999")
    return float(text)


def dropout(text: str) -> float:
    """Return a probability from 0, below 1."""
    if not weight(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0, below 1")
    return float(text)


def share(text: str) -> float:
    """Return a number above 0, at most 1."""
    if not 0 < weight(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0, at most 1")
    return float(text)


def color(text: str) -> tuple[float, float, float]:
    """Return red, green and blue in [0, 1]."""
    try:
        red, green, blue = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not r,g,b, three numbers") from None
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise argparse.ArgumentTypeError(f"{text!r} is not within 0 and 1")
    return red, green, blue
