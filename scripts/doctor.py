"""What is here, what is missing, and what to do about it: python -m scripts.doctor.

One sentence for each thing. Exit code 1 when something that the demo needs is missing.
"""

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from smpler.models import body
from smpler.models.weights.backbones import BACKBONE_FILES
from smpler.utils.paths import META_DATA, PRETRAINED, ROOT, SAMPLES, display

OK, MISSING, OPTIONAL = "ok", "MISSING", "optional"
Finding = tuple[str, str]
"""Status and sentence."""

ALTERNATIVES = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless")}
"""Packages that serve as well as the one in requirements.txt."""

PUBLISHED_WEIGHTS = ("SMPLer_h36m.pt", "SMPLer_3dpw.pt", "SMPLer-L_h36m.pt", "SMPLer-L_3dpw.pt")
DATASET_FILES = (
    "Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml",
    "human3.6m/valid.protocol2.yaml",
    "3dpw/train.yaml",
    "3dpw/test_has_gender.yaml",
)


def main() -> int:
    """Print all findings; return 1 when the demo cannot run."""
    failed = False
    for status, sentence in diagnose():
        failed |= status == MISSING
        print(f"{status:>8}  {sentence}")
    return int(failed)


def diagnose() -> Iterator[Finding]:
    """Yield a finding for python, packages, GPU, body, weights, samples and datasets."""
    yield check_python()
    yield from check_packages()
    yield check_gpu()
    yield from check_bodies()
    yield from check_weights()
    yield check_samples()
    yield from check_datasets()


def check_python() -> Finding:
    """Python itself."""
    return OK, f"Python {platform.python_version()}."


def check_packages() -> Iterator[Finding]:
    """Every line of requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for line in lines:
        requirement = re.match(r"([A-Za-z0-9_-]+)>=([0-9.]+)", line)
        if requirement:
            yield _check_package(*requirement.groups())


def _check_package(name: str, least: str) -> Finding:
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            name, version = candidate, importlib.metadata.version(candidate)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    else:
        return MISSING, f"The package {name} is not installed: pip install -r requirements.txt."
    if _numbers(version) < _numbers(least):
        return MISSING, f"{name} {version} is older than {least}: pip install -U '{name}>={least}'."
    return OK, f"{name} {version}."


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def check_gpu() -> Finding:
    """A GPU that torch can use."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        memory = properties.total_memory / 2**30
        return OK, f"GPU: {properties.name}, {memory:.0f} GiB."
    return OPTIONAL, "No GPU answers to torch: the demo runs on the CPU, training would be slow."


def check_bodies() -> Iterator[Finding]:
    """The open body, then the licensed one and what belongs to it."""
    try:
        open_body = body.open_body()
        yield OK, f"Open body: {open_body.num_vertices} vertices, {_short(open_body.sha256)}."
    except (OSError, ValueError) as error:
        yield MISSING, f"Open body: {error} `git checkout meta_data/open_body.npz` restores it."
    present = [path for path in body.SMPL_FILES if path.is_file()]
    if not present:
        yield OPTIONAL, _advice("SMPL", body.SMPL_FILES[0])
        return
    try:
        smpl = body.load_body(present[0])
        yield OK, f"SMPL: {display(present[0])}, {smpl.num_vertices} vertices."
    except ValueError as error:
        yield MISSING, f"SMPL: {error}"
        return
    for name in ("J_regressor_h36m_correct.npy", "J_regressor_3dpw.npy"):
        yield _check_regressor(META_DATA / name, smpl.num_vertices)
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
    """The detectors, what the backbones start from, and the published checkpoints."""
    for what in ("detector", "landmarks"):
        path = PRETRAINED / f"person_{what}.npz"
        if path.is_file():
            yield OK, f"Person {what}: {display(path)}."
        else:
            yield MISSING, f"{display(path)}: `git checkout pretrained` restores it."
    for name, path in BACKBONE_FILES.items():
        yield _present(f"Weights that {name} starts from", path)
    for name in PUBLISHED_WEIGHTS:
        yield _present("Published weights", PRETRAINED / name)


def check_samples() -> Finding:
    """The photos of the demo."""
    photo = SAMPLES / "im01.png"
    if photo.is_file():
        return OK, f"Sample photos: {display(SAMPLES)}."
    return MISSING, f"{display(photo)}: `git checkout samples` restores it."


def check_datasets() -> Iterator[Finding]:
    """The four published data sets."""
    for name in DATASET_FILES:
        yield _present("Data", ROOT / "datasets" / name)


def _present(what: str, path: Path) -> Finding:
    if path.is_file():
        return OK, f"{what}: {display(path)}."
    return OPTIONAL, _advice(what, path)


def _advice(what: str, path: Path) -> str:
    readme = path.parent / "README.md"
    while not readme.is_file() and readme.parent != ROOT:
        readme = readme.parent.parent / "README.md"
    return f"{what}: {display(path)} is not there; {display(readme)} says where to get it."


def _short(sha256: str) -> str:
    return f"sha256 {sha256[:12]}"


if __name__ == "__main__":
    sys.exit(main())
