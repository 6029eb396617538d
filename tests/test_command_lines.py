"""Flags of all programs: read from the code, and tried with bad values in this process."""

import argparse
import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from smpler.utils import flags
from smpler.utils.paths import ROOT
from tests.support.repository import python_files

OUR_PARSER = "utils/flags.py"
RESULTS = ("--out", "--sheet", "--golden", "--contact_sheet", "--looks")
"""Flags that name what is written, in every program that has them."""
SUBCOMMANDS = {
    "smpler.command": ([], ["doctor"], ["view"], ["web"]),
}


class Flag(NamedTuple):
    """A call of `add_argument` in the code."""

    file: str
    name: str
    keywords: dict[str, ast.expr]

    @property
    def type(self) -> str:
        return ast.unparse(self.keywords["type"]) if "type" in self.keywords else ""

    @property
    def is_checked(self) -> bool:
        """Whether bad values end the program before it works."""
        if self.keywords.keys() & {"choices", "action"}:
            return True
        in_package = not self.file.startswith(("scripts/", "benchmarks/"))
        # programs of the package look at files, hosts and names themselves, before they work
        return self.type not in ("int", "float") and (in_package or self.type not in ("Path", ""))


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in python_files():
        text = (ROOT / path).read_text()
        if not path.startswith("tests/") and ("add_argument" in text or "ArgumentParser" in text):
            yield path, ast.parse(text)


def flags_in(path: str, tree: ast.Module) -> Iterator[Flag]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            if called == "add" or called.endswith("add_argument"):
                name = ast.unparse(node.args[0]).strip("'\"")
                yield Flag(path, name, {word.arg: word.value for word in node.keywords if word.arg})


def programs() -> list[str]:
    """Return the modules that are started by `python -m`, and the console command's."""
    paths = [path for path in python_files() if not path.startswith("tests/")]
    started = [path for path in paths if '__name__ == "__main__"' in (ROOT / path).read_text()]
    names = [path.removesuffix(".py").replace("/", ".") for path in started]
    return [*(name for name in names if name not in ("demo", "smpler.__main__")), "smpler.command"]


def test_every_program_has_our_parser_and_checks_every_flag():
    plain, unchecked, untried = [], [], []
    for path, tree in trees():
        calls = [ast.unparse(x.func) for x in ast.walk(tree) if isinstance(x, ast.Call)]
        if path != OUR_PARSER and any(name.endswith("ArgumentParser") for name in calls):
            plain.append(path)
        for flag in flags_in(path, tree):
            if not flag.is_checked:
                unchecked.append(f"{path} {flag.name} type={flag.type}")
            if flag.name in RESULTS and not flag.type.startswith("output_"):
                untried.append(f"{path} {flag.name} type={flag.type}")
    assert not plain, f"use smpler.utils.flags.Parser: {plain}"
    assert not unchecked, f"give a type of smpler.utils.flags: {unchecked}"
    assert not untried, f"give output_file or one of its kind: {untried}"


def test_every_script_and_benchmark_ends_with_a_sentence():
    wrong = []
    for name in programs():
        if not name.startswith(("scripts", "benchmarks")) or name == "scripts.doctor":
            continue
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text()
        ends_well = "@program\ndef main(" in text or "return run(" in text
        if not (ends_well and text.endswith('if __name__ == "__main__":\n    sys.exit(main())\n')):
            wrong.append(name)
    assert not wrong, f"decorate main with @program, and exit with what it returns: {wrong}"


class Accepted(BaseException):
    """A command line was taken."""


@pytest.fixture
def bad(tmp_path) -> dict[str, list[str]]:
    """Return bad values by the name of a flag's type."""
    (tmp_path / "folder").mkdir()
    file, folder, missing = (str(tmp_path / name) for name in ("file", "folder", "missing"))
    Path(file).touch()
    below, long = f"{file}/below", str(tmp_path / ("x" * 300))
    numbers = {name: ["-5", "x", "1" + 30 * "0"] for name in ("whole", "port")}
    numbers |= {name: ["0", "x", "1" + 30 * "0"] for name in ("positive",)}
    numbers |= {name: ["nan", "inf", "-1"] for name in ("weight", "above_zero", "decay", "share")}
    return numbers | {
        "device_name": ["gpu", "meta", "cuda:99", ""],
        "input_file": [missing, folder, long],
        "weights_file": [missing, folder],
        "input_path": [missing],
        "input_folder": [missing, file],
        "output_file": [folder, below, long, "/dev/null"],
        "output_png": [f"{folder}/x.gif", f"{below}/x.png"],
        "output_jpeg": [f"{folder}/x.png", f"{below}/x.jpg"],
        "output_folder": [file, below],
    }


def actions_of(main, prefix: list[str], monkeypatch) -> list[argparse.Action]:
    """Return the flags of a program or of its command, of which nothing but the parser is run."""
    parsers = []

    def caught(parser, *_):
        parsers.append(parser)
        raise Accepted

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", caught)
        patch.setattr(flags.Parser, "parse_known_args", caught)
        with pytest.raises(Accepted):
            main(prefix)
    actions = parsers[0]._actions
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[prefix[0]]._actions
    return actions


def value_for(action: argparse.Action, tmp_path: Path) -> str:
    """Return a value that a required flag takes."""
    kind = getattr(action.type, "__name__", "")
    if action.choices:
        return next(iter(action.choices))
    name = {"input_folder": "folder", "input_file": "file", "input_path": "file"}.get(kind, "new")
    return str(tmp_path / name)


def given(action: argparse.Action, value: str) -> list[str]:
    return [f"{action.option_strings[-1]}={value}"] if action.option_strings else [value]


def test_bad_values_end_every_program_with_one_sentence(bad, tmp_path, monkeypatch, capsys):
    """All in one test, as the imports of all programs take longer than the values."""
    parse, tried, wrong = argparse.ArgumentParser.parse_args, 0, []

    def accept(*arguments):
        parse(*arguments)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
    monkeypatch.chdir(tmp_path)
    for name in programs():
        module = importlib.import_module(name)
        for prefix in SUBCOMMANDS.get(name, ([],)):
            actions = actions_of(module.main, prefix, monkeypatch)
            needed = {x: given(x, value_for(x, tmp_path)) for x in actions if x.required}
            lines = [(f"{x.dest}={value}", x, value) for x in actions for value in values(x, bad)]
            for what, action, value in [*lines, ("RANK=x", None, "")]:
                argv = [*prefix, *(y for x, some in needed.items() if x != action for y in some)]
                with monkeypatch.context() as patch:
                    if action is None:
                        patch.setenv("RANK", "x")
                    else:
                        argv += given(action, value)
                    said = ending(module.main, argv, capsys)
                tried += 1
                if said:
                    wrong.append(f"{name} {' '.join(prefix)} {what[:80]}: {said}")
    assert not wrong, f"{len(wrong)} of {tried}: " + "\n".join(wrong[:20])
    assert tried > 500, tried
    assert not (tmp_path / "new").is_file()


def values(action: argparse.Action, bad: dict[str, list[str]]) -> list[str]:
    if action.choices and action.nargs != 0:
        return ["nonsense"]
    return bad.get(getattr(action.type, "__name__", ""), [])


def ending(main, argv: list[str], capsys) -> str | None:
    """Return what is wrong with how a program ends; None if it ends with 2 and a sentence."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    except Accepted:
        return "taken"
    except Exception as error:
        return f"traceback of {type(error).__name__}: {error}"
    said = capsys.readouterr()
    if code != 2 or said.out or not said.err.startswith("Error: ") or said.err.count("\n") != 1:
        return f"exit code {code}, {said}"
    return None
