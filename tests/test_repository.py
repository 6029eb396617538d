import hashlib
import re
from fnmatch import fnmatch

from smpler.utils.paths import ROOT
from tests.support.repository import tracked


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
    rooms = ("models/", "utils/", "datasets/", "training/", "video/", "smpler/", "scripts/")
    rooms += ("apps/", "benchmarks/")
    code = {name for name in tracked() if name.endswith((".py", ".sh"))}
    code = {name for name in code if not name.endswith("__init__.py")}
    code = {name for name in code if name.startswith(rooms) or "/" not in name}
    code = {name for name in code if not name.startswith(tuple(folders))}
    assert not code - named, f"not in the map of CONTRIBUTING.md: {sorted(code - named)}"


def test_notice_and_cards_name_the_shipped_files_by_their_sha256():
    notice = (ROOT / "NOTICE").read_text()
    said = dict(re.findall(r"sha256 (pretrained/\S+)\n +([0-9a-f]{64})\n", notice))
    weights = (".npz", ".safetensors")
    assert set(said) == {
        name for name in tracked() if name.startswith("pretrained/") and name.endswith(weights)
    }
    for name, sha256 in said.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == sha256, name
    assert said["pretrained/lifter.npz"] in (ROOT / "pretrained/LIFTER_CARD.md").read_text()


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs" / "internals.md").read_text().split("## Dependencies")[1]
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name = re.match(r"[\w-]+", line).group()
            assert f"`{name}`" in text, name


def test_every_test_file_is_collected(request):
    """A folder that pytest leaves out by its name would lose its tests without a word."""
    left_out = request.config.getini("norecursedirs")
    for name in tracked():
        folders = name.split("/")[:-1]
        if name.startswith("tests/") and name.rpartition("/")[2].startswith("test_"):
            assert not any(fnmatch(part, rule) for part in folders for rule in left_out), name
