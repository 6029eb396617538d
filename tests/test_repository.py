import re
import subprocess

from smpler.utils.paths import ROOT


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_stay_under_60_mib():
    size = sum((ROOT / name).stat().st_size for name in tracked())
    assert size < 60 * 2**20, f"{size / 2**20:.1f} MiB"


def test_no_text_holds_a_path_of_one_machine():
    places = ("/home/[a-z]", "/ro" + "ot/", "/wo" + "rk/", r"\.\./" + "shared")
    pattern = re.compile("|".join(places))
    for name in tracked():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".sh", "") and name != "LICENSE":
            found = pattern.search(path.read_text(errors="replace"))
            assert not found, f"{name}: {found.group()}"


def test_readme_is_two_screens_long():
    size = len((ROOT / "README.md").read_bytes())
    assert size <= 10 * 2**10, f"{size} bytes"


def test_the_map_names_every_file_and_each_exists():
    section = (ROOT / "CONTRIBUTING.md").read_text().split("<!-- map -->")[1]
    named = set(re.findall(r"`([\w/.-]+\.(?:py|sh))`", section))
    folders = re.findall(r"`([\w/]+/\w+/)`", section)
    missing = [name for name in named if not (ROOT / name).is_file()]
    missing += [name for name in folders if not (ROOT / name).is_dir()]
    assert not missing, missing
    rooms = ("models/", "utils/", "datasets/", "training/", "smpler/", "scripts/", "benchmarks/")
    code = {name for name in tracked() if name.endswith((".py", ".sh"))}
    code = {name for name in code if not name.endswith("__init__.py")}
    code = {name for name in code if name.startswith(rooms) or "/" not in name}
    code = {name for name in code if not name.startswith(tuple(folders))}
    assert not code - named, f"not in the map of CONTRIBUTING.md: {sorted(code - named)}"


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs" / "internals.md").read_text().split("## Dependencies")[1]
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name = re.match(r"[\w-]+", line).group()
            assert f"`{name}`" in text, name
