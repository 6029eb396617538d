import re
import subprocess

from smpler.utils.paths import ROOT
from tests.support.typecheck import find_problems


def test_make_help_explains_every_target():
    targets = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    explained = dict(line.split("\t", 1) for line in listed.stdout.splitlines())
    assert sorted(explained) == sorted(" ".join(targets).split())
    assert all(text.strip() for text in explained.values()), explained


def test_the_type_checker_follows_imports_through_the_package(tmp_path):
    mistake = "from smpler.utils.numbers import half\n\nhalf('one')\n"
    files = {
        "smpler/__init__.py": "",
        "utils/__init__.py": "",
        "utils/numbers.py": "def half(number: float) -> float:\n    return number / 2\n",
        "models/mistake.py": mistake,
        "datasets/mistake.py": mistake,
        "datasets/engine/mistake.py": mistake,
        "datasets/of_the_user/mistake.py": mistake,
        "main.py": mistake,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    problems = find_problems(tmp_path, ["smpler", "utils", "models", "datasets", "main.py"])
    places = {(room, text.split(": ")[0]) for room, text in problems}
    assert places == {
        ("models", "models/mistake.py:3:6"),
        ("datasets", "datasets/mistake.py:3:6"),
        ("datasets", "datasets/engine/mistake.py:3:6"),
        ("main.py", "main.py:3:6"),
    }, problems
    assert all("invalid-argument-type" in text for _, text in problems), problems
