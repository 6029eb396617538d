"""Say what is present, what is missing, and what to do about it: smpler doctor.

One sentence for each thing. Exit code 1 when something that the demo needs is missing.
"""

import importlib.metadata
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from smpler import __version__
from smpler.models import body
from smpler.models.backbones import BACKBONES
from smpler.models.weights.checkpoint import released_weights
from smpler.utils.flags import Parser
from smpler.utils.paths import (
    IS_CHECKOUT,
    PRETRAINED,
    ROOT,
    SAMPLES,
    USER_FOLDER,
    USER_META_DATA,
    USER_PRETRAINED,
    datasets_root,
    display,
    readme_of,
)

OK, MISSING, OPTIONAL = "ok", "MISSING", "optional"
Finding = tuple[str, str]
"""Status and sentence."""

ALTERNATIVES = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless")}
"""Packages that serve as well as the one in requirements.txt."""

DETECTORS = {
    "Detector of people": "person_detector_groups.npz",
    "Detector of people near the camera": "person_detector.npz",
    "Detector of landmarks": "person_landmarks.npz",
    "Detector of landmarks, heavy": "person_landmarks_heavy.npz",
    "Lifter": "lifter.npz",
}
PUBLISHED_WEIGHTS = ("SMPLer_h36m.pt", "SMPLer_3dpw.pt", "SMPLer-L_h36m.pt", "SMPLer-L_3dpw.pt")
DATASET_FILES = (
    "Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml",
    "human3.6m/valid.protocol2.yaml",
    "3dpw/train.yaml",
    "3dpw/test_has_gender.yaml",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print all findings; return 1 when the demo cannot run."""
    parser = Parser(prog="smpler doctor", description=__doc__.split(":")[0])
    parser.parse_args(argv)
    failed = False
    for status, sentence in diagnose():
        failed |= status == MISSING
        print(f"{status:>8}  {sentence}")
    return int(failed)


def diagnose() -> Iterator[Finding]:
    """Yield a finding for versions, packages, GPU, body, weights, samples and data sets."""
    yield OK, f"SMPLer {__version__}, Python {platform.python_version()}."
    yield from check_packages()
    yield check_gpu()
    yield from check_bodies()
    yield from check_weights()
    if IS_CHECKOUT:
        yield check_samples()
    yield from check_datasets()
    yield OK, f"Your own files belong in meta_data/ and pretrained/ in {USER_FOLDER}."


def check_packages() -> Iterator[Finding]:
    """Check every package that this one requires."""
    for line in _requirements():
        requirement = re.match(r"([A-Za-z0-9_-]+)>=([0-9.]+)", line)
        if requirement:
            yield _check_package(*requirement.groups())


def _requirements() -> list[str]:
    """Return lines such as `numpy>=1.26`: requirements.txt, or what the installed package says."""
    if IS_CHECKOUT:
        return (ROOT / "requirements.txt").read_text().splitlines()
    needed = importlib.metadata.requires("smpler") or []
    return [line for line in needed if "extra ==" not in line]


def _check_package(name: str, least: str) -> Finding:
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            name, version = candidate, importlib.metadata.version(candidate)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    else:
        return MISSING, f"The package {name} is not installed: pip install '{name}>={least}'."
    if _numbers(version) < _numbers(least):
        return MISSING, f"{name} {version} is older than {least}: pip install -U '{name}>={least}'."
    return OK, f"{name} {version}."


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def check_gpu() -> Finding:
    """Check whether torch can use a GPU."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        memory = properties.total_memory / 2**30
        return OK, f"GPU: {properties.name}, {memory:.0f} GiB."
    return OPTIONAL, "No GPU answers to torch: the demo runs on the CPU, training would be slow."


def check_bodies() -> Iterator[Finding]:
    """Check the open body, then the licensed one and what belongs to it."""
    try:
        open_body = body.open_body()
        yield OK, f"Open body: {open_body.num_vertices} vertices, {_short(open_body.sha256)}."
    except (OSError, ValueError) as error:
        yield MISSING, f"Open body: {error} {_restore('meta_data/open_body.npz')}"
    present = [path for path in body.SMPL_FILES if path.is_file()]
    if not present:
        names = ", ".join(path.name for path in body.SMPL_FILES)
        where = f"put one of {names} into {display(USER_META_DATA)}"
        yield OPTIONAL, f"{_advice('SMPL', body.SMPL_FILES[0])[:-1]}; {where}."
        return
    try:
        smpl = body.load_body(present[0])
        yield OK, f"SMPL: {display(present[0])}, {smpl.num_vertices} vertices."
    except ValueError as error:
        yield MISSING, f"SMPL: {error}"
        return
    for name in ("J_regressor_h36m_correct.npy", "J_regressor_3dpw.npy"):
        yield _check_regressor(USER_META_DATA / name, smpl.num_vertices)
    if body.MEAN_PARAMS.is_file():
        yield OK, f"SMPL's mean parameters: {display(body.MEAN_PARAMS)}."
    else:
        yield OPTIONAL, _advice("SMPL's mean parameters", body.MEAN_PARAMS)


def _check_regressor(path: Path, num_vertices: int) -> Finding:
    if not path.is_file():
        return OPTIONAL, _advice("Keypoint regressor", path)
    try:
        body.check_h36m_regressor(body.load_h36m_regressor(path), num_vertices)
    except ValueError as error:
        return MISSING, f"{display(path)}: {error}"
    return OK, f"Keypoint regressor: {display(path)}."


def check_weights() -> Iterator[Finding]:
    """Check detectors, open weights, what backbones start from, and published checkpoints."""
    released = released_weights()
    if released is None:
        yield MISSING, f"There are no open weights: {_restore('pretrained')}"
    else:
        yield OK, f"Open weights: {display(released)}."
    for what, name in DETECTORS.items():
        path = PRETRAINED / name
        if path.is_file():
            yield OK, f"{what}: {display(path)}."
        else:
            yield MISSING, f"{display(path)} is missing: {_restore('pretrained')}"
    for name, row in BACKBONES.items():
        yield _present(f"Weights that {name} starts from", row.weights_file)
    for name in PUBLISHED_WEIGHTS:
        yield _present("Published weights", USER_PRETRAINED / name)


def check_samples() -> Finding:
    """Check the photos of the demo."""
    photo = SAMPLES / "im01.png"
    if photo.is_file():
        return OK, f"Sample photos: {display(SAMPLES)}."
    return MISSING, f"{display(photo)}: `git checkout samples` restores it."


def check_datasets() -> Iterator[Finding]:
    """Check the published protocols' four data sets."""
    for name in DATASET_FILES:
        yield _present("Data", datasets_root() / name)


def _present(what: str, path: Path) -> Finding:
    if path.is_file():
        return OK, f"{what}: {display(path)}."
    return OPTIONAL, _advice(what, path)


def _advice(what: str, path: Path) -> str:
    readme = readme_of(path)
    where = "" if readme is None else f"; {display(readme)} says where to get it"
    return f"{what}: {display(path)} is not there{where}."


def _restore(path: str) -> str:
    """Say how to get a shipped file back."""
    if IS_CHECKOUT:
        return f"`git checkout {path}` restores it."
    return "`pip install --force-reinstall --no-deps smpler` restores it."


def _short(sha256: str) -> str:
    return f"sha256 {sha256[:12]}"
