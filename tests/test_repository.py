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


def test_readme_names_every_file_of_the_map_and_each_exists():
    readme = (ROOT / "README.md").read_text()
    section = readme.split("<!-- map -->")[1]
    named = set(re.findall(r"`([\w/.-]+\.py)`", section))
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert not missing, missing
    folders = ("models/", "utils/", "datasets/", "scripts/", "benchmarks/")
    code = {name for name in tracked() if name.endswith(".py") and not name.endswith("__init__.py")}
    code = {name for name in code if name.startswith(folders) or "/" not in name}
    whole_folders = tuple(re.findall(r"`([\w/]+/\w+/)`", section))
    code = {name for name in code if not name.startswith(whole_folders or "-")}
    assert not code - named, f"not in the README's map: {sorted(code - named)}"


def test_every_dependency_is_answered_for_in_the_readme():
    readme = (ROOT / "README.md").read_text().split("## Dependencies")[1]
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name = re.match(r"[\w-]+", line).group()
            assert f"`{name}`" in readme, name
