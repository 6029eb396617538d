"""What the texts promise: their Python runs; the links, files, commands and flags in them exist."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

import main
from smpler import command
from smpler.utils.image import read_image
from smpler.utils.paths import ROOT
from smpler.video.drawing import encode

MAX_NOT_RUN = 3
"""Blocks of Python that may say why no test runs them."""

LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
TEXTS = {name: (ROOT / name).read_text() for name in LISTED if (ROOT / name).is_file()}
GUIDES = {
    name: text for name, text in TEXTS.items() if name == "README.md" or name.startswith("docs/")
}
BLOCK = re.compile(
    r"(?:<!-- not run: *(?P<reason>[^\n]*?) *-->\n)?```python\n(?P<code>.*?)```", re.DOTALL
)


def python_blocks(name: str) -> list[tuple[str | None, int, str]]:
    """Return (reason not to run it, line of the file, code) of each block of Python in a guide."""
    text = GUIDES[name]
    return [
        (found["reason"], text.count("\n", 0, found.start("code")), found["code"])
        for found in BLOCK.finditer(text)
    ]


WITH_PYTHON = [name for name in GUIDES if python_blocks(name)]


def film(path, photo):
    """Write a clip that shows a photo for three frames."""
    with open(path, "wb") as file:
        encode([photo] * 3, 10.0, file)


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_in_the_guides_runs(name, tmp_path, monkeypatch):
    for photo in ("photo.jpg", "im01.png"):
        shutil.copy(ROOT / "samples" / "im01.png", tmp_path / photo)
    film(tmp_path / "clip.mp4", read_image(ROOT / "samples" / "im01.png"))
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "guide"}  # one for a guide: later blocks go on from earlier ones
    for reason, line, code in python_blocks(name):
        if reason is None:
            code = code.replace('"PATH"', repr(str(ROOT)))
            exec(compile("\n" * line + code, name, "exec"), namespace)


def test_python_that_is_not_run_says_why_and_is_rare():
    reasons = [reason for name in WITH_PYTHON for reason, _, _ in python_blocks(name)]
    given = [reason for reason in reasons if reason is not None]
    assert all(given), given
    marks = sum(text.count("<!-- not run") for text in GUIDES.values())
    assert marks == len(given), f"{marks} marks, of which {len(given)} stand before Python"
    assert len(given) <= MAX_NOT_RUN, given


def anchors(text: str) -> set[str]:
    """Return the anchors of a text's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{name}: {target}"


def test_files_that_the_texts_name_exist():
    file_name = re.compile(r"(?<![\w./$-])(?:[\w-]+/)+[\w-]+\.(?:py|sh|md)\b")
    for name, text in TEXTS.items():
        without_urls = re.sub(r"https?://\S+", "", text)
        for file in file_name.findall(without_urls):
            places = (ROOT, (ROOT / name).parent)
            assert any((place / file).is_file() for place in places), f"{name}: {file}"


def test_modules_that_the_texts_run_exist():
    for name, text in TEXTS.items():
        for module in re.findall(r"python -m ([\w.]+\w)", text):
            assert can_run(module), f"{name}: python -m {module}"


def can_run(module: str) -> bool:
    """Return whether `python -m` can run a module: a package needs a `__main__`."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    is_package = found is not None and found.submodule_search_locations is not None
    return can_run(f"{module}.__main__") if is_package else found is not None


def flags_of(program: Callable[[list[str]], object], capsys) -> set[str]:
    """Return the flags that a program's --help names."""
    with pytest.raises(SystemExit):
        program(["--help"])
    return set(re.findall(r"--\w[\w-]*", capsys.readouterr().out))


def test_flags_of_the_training_guide_are_flags_of_main(capsys):
    text = GUIDES["docs/training.md"]
    # flags of other programs: of the launchers, and of scripts and benchmarks
    for others in (
        r"python -m torch\.distributed\.launch.*? main\.py",
        r"python -m (?!torch)[\w.]+[^`\n]*",
        r"sbatch [^`\n]*",
    ):
        text = re.sub(others, "", text)
    unknown = set(re.findall(r"--\w+", text)) - flags_of(main.main, capsys)
    assert not unknown, sorted(unknown)


def test_output_guide_lists_the_flags_of_the_demo(capsys):
    table = GUIDES["docs/output.md"].split("## Flags")[1].split("\n\n")[0]
    named = set(re.findall(r"`(--[\w-]+)`", table))
    assert named == flags_of(command.main, capsys) - {"--help", "--version"}


@pytest.mark.parametrize("name", ["view", "web"])
def test_viewing_guide_lists_the_flags_of_view_and_web(name, capsys):
    section = GUIDES["docs/viewing.md"].split(f"## smpler {name}\n")[1].split("\n## ")[0]
    named = set(
        re.findall(r"^\|[^|]*?`(--[\w-]+)`(?:, `(--[\w-]+)`)?", section, flags=re.MULTILINE)
    )
    flags = flags_of(lambda arguments: command.main([name, *arguments]), capsys)
    assert {flag for pair in named for flag in pair if flag} == flags - {"--help"}


def test_commands_of_main_in_the_texts_are_accepted():
    lines = [
        (name, line.split())
        for name, text in TEXTS.items()
        for line in re.findall(r"python [^`\n]*?main\.py( +-[^`#\n]+)", text)
        if "--help" not in line
    ]
    assert len(lines) > 10, "the pattern finds no commands any more"
    for name, arguments in lines:
        try:
            main.parse_arguments(arguments)
        except SystemExit:
            pytest.fail(f"{name}: main.py {' '.join(arguments)}")


def test_published_commands_are_the_same_in_readme_and_training_guide():
    in_readme, in_guide = (
        [line for line in GUIDES[name].splitlines() if "torch.distributed.launch" in line]
        for name in ("README.md", "docs/training.md")
    )
    assert len(in_readme) == 5, in_readme
    assert in_readme == in_guide


def test_goals_stand_in_the_results_and_nowhere_else():
    for name, text in GUIDES.items():
        if name != "docs/results.md":
            found = re.search(r"\b(?:wanted|targets?|goals?)\b", text, flags=re.IGNORECASE)
            assert not found, f"{name}: {text[max(found.start() - 60, 0) : found.end() + 20]!r}"
