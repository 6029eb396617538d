import argparse
import os
from pathlib import Path

import pytest
import torch

from smpler.utils import flags
from smpler.utils.flags import Parser, program, sentence
from smpler.utils.paths import prepare_file


def parser(*types, default=None) -> Parser:
    made = Parser()
    for number, kind in enumerate(types):
        made.add_argument(f"--{number}", type=kind, default=default)
    return made


def ended(error: BaseException) -> int:
    @program
    def main() -> int:
        raise error

    return main()


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("box is 5."), "Error: box is 5.\n"),
        (OSError(28, "No space left on device", "numbers.json"), "numbers.json: No space left on "),
        (ImportError("anny is missing"), "Error: anny is missing\n"),
        (FloatingPointError("the loss is nan"), "Error: the loss is nan\n"),
        (MemoryError(), "Error: the memory is full"),
        (
            RuntimeError("Allocator: can't allocate memory: 9"),
            "Error: the memory is full",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "Error: the memory is full"),
        (ValueError("Caught ValueError in worker 1.\nTraceback\nValueError: row 3"), ": row 3\n"),
        (ValueError("two\n  lines"), "Error: two lines\n"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "Error: 'utf-8'"),
    ],
    ids=[
        "value",
        "system",
        "import",
        "number",
        "memory",
        "torch",
        "gpu",
        "worker",
        "lines",
        "text",
    ],
)
def test_a_users_mistake_is_one_sentence(error, said, capsys):
    assert ended(error) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_ctrl_c_is_no_traceback(capsys):
    assert ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RuntimeError("sizes differ")])
def test_mistakes_of_ours_keep_their_traceback(error):
    with pytest.raises(type(error)):
        ended(error)


def test_the_answer_of_a_program_is_its_exit_code():
    assert program(lambda argv: len(argv))(["a", "b", "c"]) == 3


def test_a_file_of_results_is_tried_and_an_older_one_stays(tmp_path):
    old = tmp_path / "old.json"
    old.write_text("old")
    found = parser(flags.output_file).parse_args([f"--0={old}"])
    assert vars(found)["0"] == old and old.read_text() == "old"
    parser(flags.output_file).parse_args([f"--0={tmp_path / 'new' / 'x.json'}"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "old.json"]


def test_a_default_that_cannot_be_written_is_noticed(tmp_path):
    (tmp_path / "file").touch()
    default = tmp_path / "file" / "x.npz"
    with pytest.raises(OSError, match="^--0: .*x.npz cannot be written .Not a directory"):
        parser(flags.output_file, default=default).parse_args([])


def test_nothing_is_made_for_a_wrong_command_line(tmp_path):
    line = [f"--0={tmp_path / 'a' / 'x.json'}", f"--1={tmp_path / 'b'}", "--2=-5"]
    with pytest.raises(SystemExit):
        parser(flags.output_file, flags.output_folder, flags.whole).parse_args(line)
    with pytest.raises(SystemExit):
        parser(flags.output_file).parse_args([line[0], "--nonsense"])
    assert not list(tmp_path.iterdir())


def test_each_of_several_files_is_tried(tmp_path):
    (tmp_path / "a").touch()
    made = Parser()
    made.add_argument("photos", type=flags.input_path, nargs="+")
    assert made.parse_args([str(tmp_path), str(tmp_path / "a")]).photos[0] == tmp_path
    with pytest.raises(OSError, match="^photos: .*/b is missing"):
        made.parse_args([str(tmp_path / "a"), str(tmp_path / "b")])


def test_only_the_flags_of_the_chosen_command_are_tried(tmp_path):
    made = Parser()
    commands = made.add_subparsers(required=True)
    commands.add_parser("write").add_argument("folder", type=flags.output_folder)
    commands.add_parser("read").add_argument("folder", type=flags.input_folder)
    with pytest.raises(OSError, match="There is no folder .*/x"):
        made.parse_args(["read", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()
    assert made.parse_args(["write", str(tmp_path / "x")]).folder.is_dir()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written .Permission denied"):
        prepare_file(tmp_path / "x.json")


def test_devices_are_never_replaced_by_a_file():
    with pytest.raises(OSError, match="it is a device or pipe"):
        prepare_file(Path("/dev/null"))
    assert not Path("/dev/null").is_file()


def test_init_stands_for_untrained_weights(tmp_path):
    assert vars(parser(flags.weights_file).parse_args(["--0=init"]))["0"] == Path("init")
    with pytest.raises(OSError, match="is a folder; name a file"):
        parser(flags.weights_file).parse_args([f"--0={tmp_path}"])


def test_a_device_is_there_or_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [flags.device_name(name) for name in ("cpu", "cuda", "cuda:1")][2] == "cuda:1"
    for name, said in {"cuda:2": "no GPU answers to cuda:2", "gpu": "gpu is no device"}.items():
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            flags.device_name(name)


@pytest.mark.parametrize(
    "variables, said",
    [
        ({"RANK": "x"}, "RANK='x', which is not a whole number from 0"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0', which is not a whole number from 1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK='-1'"),
        ({"RANK": "1"}, "RANK=1 and WORLD_SIZE=1: ranks go from 0"),
    ],
    ids=["rank", "size", "local", "alone"],
)
def test_variables_that_no_launcher_sets_are_one_sentence(variables, said, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for line in ([], ["--nonsense"]):
        with pytest.raises(SystemExit) as end:
            parser().parse_args(line)
        printed = capsys.readouterr().err
        assert end.value.code == 2 and said in printed and printed.count("\n") == 1


def test_a_program_is_called_as_the_user_called_it(monkeypatch, capsys):
    class Main:
        __spec__ = importlib_spec("benchmarks.groups.__main__")

    monkeypatch.setitem(flags.sys.modules, "__main__", Main)
    with pytest.raises(SystemExit):
        parser().parse_args(["--nonsense"])
    assert "`python -m benchmarks.groups --help` lists all flags" in capsys.readouterr().err


def importlib_spec(name: str):
    return type("Spec", (), {"name": name})


def test_an_error_without_words_has_its_name():
    assert sentence(ValueError()) == "ValueError"
