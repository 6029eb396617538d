"""Types of command-line flags, and a parser whose errors are one sentence."""

import argparse
import math
import sys
from typing import NoReturn

from smpler.utils.launcher import launched_rank


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, printed by the first process alone."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line, and exit with code 2."""
        if launched_rank() == 0:
            program = f"python {self.prog}" if self.prog.endswith(".py") else self.prog
            text = f"Error: {message}. `{program} --help` lists all flags."
            print(text, file=sys.stderr)
        sys.exit(2)


def whole(text: str) -> int:
    """Return a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isdecimal() or int(text) == 0:
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
