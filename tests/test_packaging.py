"""The package as users meet it: in a checkout, editable, from a wheel, by torch.hub.

Everything is installed from a copy of the tracked files into a new virtual environment that sees
this one's packages, without a network, and used in a folder with packages of its own that are
called as our folders are.
"""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import smpler
from smpler.utils.paths import ROOT, SAMPLES
from tests.support.repository import python_files, tracked

PREDICT = """
from smpler import Predictor
people = Predictor.load()("im01.png")
print(people[0].vertices.shape, people[0].version, people[0].image)
import sys, datasets, models, utils
print(datasets.OWN + models.OWN + utils.OWN)
modules = {name: getattr(m, "__file__", None) for name, m in list(sys.modules.items())}
ours = {file for name, file in modules.items() if name.startswith("smpler")}
twice = [file for file in ours if list(modules.values()).count(file) > 1]
assert len(ours) > 20 and not twice, (len(ours), twice)
"""
PREDICTED = [f"(13718, 3) {smpler.__version__} im01.png", "3"]


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy what git tracks, so that an installation leaves nothing behind in the checkout."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


@pytest.fixture
def place(tmp_path) -> Path:
    """A user's folder: a photo, and packages called as three of ours are."""
    folder = tmp_path / "place"
    for name in ("datasets", "models", "utils"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("OWN = 1\n")
    shutil.copy2(SAMPLES / "im01.png", folder)
    return folder


@pytest.fixture
def environment(tmp_path) -> Path:
    """A new virtual environment; its packages are this one's, but for ours."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(*command, cwd: Path, code: int = 0) -> str:
    """Return what a command prints; it must end with the exit code."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == code, (command, done.stdout[-2000:], done.stderr[-3000:])
    return done.stdout + done.stderr


def install(environment: Path, *what) -> None:
    flags = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    run(environment / "python", "-m", "pip", "install", *flags, *what, cwd=environment)


def check_installed(environment: Path, place: Path) -> None:
    """Use Python and the console command as a user does."""
    lines = run(environment / "python", "-c", PREDICT, cwd=place).splitlines()
    assert lines[-2:] == PREDICTED, lines
    line = run(environment / "smpler", "im01.png", "--device", "cpu", cwd=place)
    assert line.startswith("im01.png: 1 person, ") and "-> outputs/im01_out.png" in line, line
    assert (place / "outputs" / "im01_0.glb").is_file()
    assert run(environment / "smpler", "--version", cwd=place) == f"SMPLer {smpler.__version__}\n"


def test_an_editable_installation_works_beside_packages_of_our_folders_names(
    tmp_path, environment, place
):
    source = copy_of_the_checkout(tmp_path / "source")
    install(environment, "-e", source)
    check_installed(environment, place)


@pytest.mark.parametrize("kind", ["folder", pytest.param("wheel", marks=pytest.mark.slow)])
def test_an_installed_package_works_and_holds_nothing_of_the_users(
    kind, tmp_path, environment, place, monkeypatch
):
    source = copy_of_the_checkout(tmp_path / "source")
    own = ("meta_data/SMPL_NEUTRAL.pkl", "meta_data/notes.py", "pretrained/SMPLer_h36m.pt")
    for name in (*own, "pretrained/smpler_open_mine.safetensors", "datasets/3dpw/x.tsv"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("the user's own")
    if kind == "wheel":
        flags = ("--no-deps", "--no-build-isolation", "--quiet", "-w", tmp_path)
        run(sys.executable, "-m", "pip", "wheel", source, *flags, cwd=tmp_path)
        (wheel,) = tmp_path.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert not [name for name in names if name.endswith((".tsv", ".pt", ".pkl", "notes.py"))]
        data = {name for name in names if name.endswith((".npz", ".safetensors"))}
        expected = {"meta_data/open_body.npz", "pretrained/smpler_open_blaze.safetensors"}
        networks = ("detector", "detector_groups", "landmarks", "landmarks_heavy")
        expected |= {f"pretrained/person_{what}.npz" for what in networks}
        expected |= {"pretrained/lifter.npz"}
        assert data == {f"smpler/{name}" for name in expected}, data
        install(environment, wheel)
    else:
        install(environment, source)
    shutil.rmtree(source)
    check_installed(environment, place)
    monkeypatch.setenv("SMPLER_HOME", str(tmp_path / "mine"))
    said = run(environment / "smpler", "doctor", cwd=place)
    assert "MISSING" not in said and f"{tmp_path / 'mine' / 'meta_data'}" in said, said
    said = run(environment / "smpler", cwd=place, code=2)
    assert said == "Error: no photo is given. `smpler --help` lists all flags.\n"


HUB = """
import sys, torch
sys.path.insert(0, OTHER)
import smpler
assert getattr(smpler, "__version__", "9") == "9"
predictor = torch.hub.load(ROOT, "predictor", source="local", device="cpu")
people = predictor("im01.png")
print(people[0].vertices.shape, people[0].version, people[0].image)
import datasets, models, utils
print(datasets.OWN + models.OWN + utils.OWN)
"""


@pytest.mark.parametrize("has_version", [True, False], ids=["package", "mere folder"])
def test_hub_loads_the_checkout_that_it_is_given_even_beside_another_smpler(
    has_version, tmp_path, place
):
    (tmp_path / "other" / "smpler").mkdir(parents=True)
    if has_version:
        (tmp_path / "other" / "smpler" / "__init__.py").write_text("__version__ = '9'\n")
    program = f"ROOT, OTHER = {str(ROOT)!r}, {str(tmp_path / 'other')!r}\n" + HUB
    assert run(sys.executable, "-c", program, cwd=place).splitlines()[-2:] == PREDICTED


@pytest.mark.parametrize("name", ["models", "datasets", "utils", "training", "video", "apps"])
def test_our_folders_are_packages_under_one_name_only(name):
    said = run(sys.executable, "-c", f"import {name}", cwd=ROOT, code=1)
    assert f"ImportError: Import this package as smpler.{name}" in said


def test_what_stands_beside_the_package_is_not_in_it():
    outside = ("scripts", "benchmarks", "tests", "smpler", "main", "demo", "hubconf")
    program = f"""
import importlib
for name in {outside!r}:
    try:
        importlib.import_module("smpler." + name)
    except ImportError:
        continue
    print("found", name)
"""
    assert run(sys.executable, "-c", program, cwd=ROOT) == ""


def test_the_list_of_packages_is_the_tree():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.rpartition("/")[0] for path in python_files()}
    rooms = ("smpler", "models", "datasets", "training", "utils", "video", "apps")
    packages = {
        "smpler" if folder == "smpler" else f"smpler.{folder.replace('/', '.')}"
        for folder in folders
        if folder.split("/")[0] in rooms
    }
    listed = set(settings["packages"]) - {"smpler.meta_data", "smpler.pretrained"}
    assert listed == packages
    for package, names in settings["package-data"].items():
        for name in names:
            assert (ROOT / settings["package-dir"][package] / name).is_file(), name


def test_the_docker_image_gets_every_package_and_its_data():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    folders = set(settings["package-dir"].values()) - {"datasets", "meta_data", "pretrained"}
    data = {
        f"{settings['package-dir'][package]}/{name}"
        for package, names in settings["package-data"].items()
        for name in names
    }
    needed = folders | data | {"datasets/*.py", "datasets/engine", "pyproject.toml", "setup.py"}
    assert needed <= let_in, needed - let_in
    missing = [name for name in let_in if not list(ROOT.glob(name))]
    assert not missing, missing


def test_public_names_are_imported_when_they_are_used():
    program = (
        "import sys, smpler; assert 'torch' not in sys.modules; print(dir(smpler)); "
        "smpler.open_body(); assert 'torch' in sys.modules; smpler.PersonResult; smpler.nothing"
    )
    said = run(sys.executable, "-c", program, cwd=ROOT, code=1)
    assert all(repr(name) in said for name in ("Predictor", "PersonResult", "open_body"))
    assert "module 'smpler' has no attribute 'nothing'" in said
