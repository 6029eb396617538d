"""What synthetic people wear and where they stand: the pack that `scripts.build.wardrobe` writes.

The pack, `meta_data/wardrobe.npz`, holds MakeHuman's clothes, shoes, hair and skins, fitted to the
open body, and panoramas of Poly Haven: all CC0, each source named in NOTICE. Its layout: `index` is
a JSON text of names and numbers; the arrays of an item are named `GROUP/NAME/FIELD`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from smpler.datasets.engine.layers import Mesh
from smpler.utils.files.arrays import read_npz
from smpler.utils.files.text import parse_json
from smpler.utils.paths import META_DATA, display, require

WARDROBE = META_DATA / "wardrobe.npz"
FORMAT = "smpler-wardrobe/1"
LENGTH_UNIT = 5e-5
"""Metres per step of the 16-bit lengths in the pack."""
GAMMA = 2.2
"""Panoramas are stored as scale * (value / 255) ** GAMMA."""

GROUPS = {"outfits": "outfit", "shoes": "shoes", "hair": "hair", "hats": "hat"}
"""Field of `Wardrobe` -> `Garment.kind` of what it holds."""

HELD_OUT = {
    "outfits": ("male_casualsuit03", "female_casualsuit02"),
    "hair": ("short03", "bob02"),
    "skins": (
        "middleage_african_male",
        "old_caucasian_female",
        "young_asian_female",
        "young_caucasian_male2",
    ),
    "panoramas": ("bridge", "esplanade", "park", "workshop"),
}
"""Names that only validation sees. Shoes and hats are too few to split: both splits have all."""


@dataclass(frozen=True, eq=False)
class Garment(Mesh):
    """One piece of clothing, or hair, as a layer that is posed like the open body.

    Every vertex of it has an anchor, a vertex of the body whose pose correctives it borrows.
    """

    name: str
    kind: str
    """`outfit`, `shoes`, `hair` or `hat`."""
    suits: str
    """`male`, `female` or `both`."""
    texture: UInt8[np.ndarray, "s s 4"]
    """sRGB and alpha: how much of the light is stopped (255 = all)."""
    hidden_faces: Bool[np.ndarray, "body_faces"]
    """Whether it covers a face of the body, which would show through if it were drawn."""


@dataclass(frozen=True, eq=False)
class Skin:
    """What the body's surface looks like, eyes and underwear included."""

    name: str
    suits: str
    """`male` or `female`."""
    texture: UInt8[np.ndarray, "s s 3"]
    """sRGB; `Wardrobe.body_uv` says where the body's faces are on it."""


@dataclass(frozen=True, eq=False)
class Panorama:
    """A place seen in all directions, and its light. Frame: y up.

    All light is in one unit: averaged over all orientations, a white surface shows 1. White matt of
    unit normal n shows `spherical_harmonics(n) @ ambient + max(0, n . sun_direction) * sun_color`.
    """

    name: str
    image: Float[np.ndarray, "h w 3"]
    """Linear radiance, lamps and sun clipped. The pixel of the unit direction d has its centre at
    column `(atan2(d_x, d_z) / (2 pi) + 0.5) * w - 0.5`, row `acos(d_y) / pi * h - 0.5`."""
    sun_direction: Float[np.ndarray, "3"]
    """Unit vector towards the sun, or the brightest lamps."""
    sun_color: Float[np.ndarray, "3"]
    ambient: Float[np.ndarray, "9 3"]
    """All other light, by spherical harmonics up to the second degree."""


@dataclass(frozen=True, eq=False)
class Wardrobe:
    """Everything that people are dressed with and placed in."""

    outfits: tuple[Garment, ...]
    shoes: tuple[Garment, ...]
    hair: tuple[Garment, ...]
    hats: tuple[Garment, ...]
    skins: tuple[Skin, ...]
    panoramas: tuple[Panorama, ...]
    body_uv: Float[np.ndarray, "body_faces 3 2"]
    """Texture coordinates of the open body's faces on a skin, as `Mesh.uv` says."""

    def split(self, name: str) -> "Wardrobe":
        """Return what training (`train`) or validation (`val`) may see, as `HELD_OUT` says.

        Raises:
            ValueError: there is no such split.
        """
        if name not in ("train", "val"):
            raise ValueError(f"The wardrobe's splits are 'train' and 'val', not {name!r}.")
        parts = {}
        for group, held_out in HELD_OUT.items():
            items = getattr(self, group)
            parts[group] = tuple(i for i in items if (i.name in held_out) == (name == "val"))
        return replace(self, **parts)


def load_wardrobe(path: str | Path | None = None) -> Wardrobe:
    """Read the pack, by default the shipped one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a pack, or damaged.
    """
    path = require(Path(path or WARDROBE))
    advice = "fetch it again, or build it with python -m scripts.build.wardrobe"
    arrays = read_npz(path, what="is no wardrobe", advice=advice)
    try:
        return _unpack(_Pack(arrays))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, cv2.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{display(path)} is no wardrobe: {reason}; {advice}.") from error


def spherical_harmonics(normals: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 9"]:
    """Evaluate the nine real spherical harmonics of degree 0 to 2 in the order of `ambient`."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack(
        [
            np.full_like(x, 0.5 * np.pi**-0.5),
            *((0.75 / np.pi) ** 0.5 * axis for axis in (y, z, x)),
            *((3.75 / np.pi) ** 0.5 * product for product in (x * y, y * z)),
            (0.3125 / np.pi) ** 0.5 * (3 * z * z - 1),
            (3.75 / np.pi) ** 0.5 * x * z,
            (0.9375 / np.pi) ** 0.5 * (x * x - y * y),
        ],
        axis=-1,
    )


class _Pack:
    """The arrays of the npz, turned back into what they were before packing."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        if self.index.get("format") != FORMAT:
            raise ValueError(f"its format is {self.index.get('format')!r}, not {FORMAT!r}")

    @cached_property
    def index(self) -> dict:
        """Names and numbers of all items."""
        return parse_json(str(self.arrays["index"]), "its index")

    def finite(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Return numbers of an item, if all are."""
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} has a value that is not finite")
        return numbers

    def lengths(self, name: str) -> Float[np.ndarray, "*shape"]:
        """Return lengths in metres."""
        return self.arrays[name].astype(np.float32) * LENGTH_UNIT

    def integers(self, name: str) -> Int[np.ndarray, "*shape"]:
        """Return indices."""
        return self.arrays[name].astype(np.int64)

    def uv(self, name: str) -> Float[np.ndarray, "f 3 2"]:
        """Return texture coordinates of the faces' corners."""
        table = self.arrays[f"{name}_table"].astype(np.float32) / 65535  # (m, 2), shared by corners
        return table[self.arrays[f"{name}_faces"]]

    def image(self, name: str, alpha: bool = False) -> UInt8[np.ndarray, "h w c"]:
        """Return RGB, or RGBA; WebP leaves out an alpha that is 255 all over."""
        image = cv2.imdecode(self.arrays[name], cv2.IMREAD_UNCHANGED)
        if image is None:
            raise ValueError(f"{name} is no picture")
        stored = "BGRA" if image.shape[2] == 4 else "BGR"
        order = f"COLOR_{stored}2{'RGBA' if alpha else 'RGB'}"
        return cv2.cvtColor(image, getattr(cv2, order))


def _unpack(pack: _Pack) -> Wardrobe:
    body_uv = pack.uv("body/uv")
    groups = pack.index["groups"]
    garments = {
        group: tuple(_garment(pack, group, item, len(body_uv)) for item in groups[group])
        for group in GROUPS
    }
    return Wardrobe(
        **garments,
        skins=tuple(
            Skin(**item, texture=pack.image(f"skins/{item['name']}/texture"))
            for item in groups["skins"]
        ),
        panoramas=tuple(_panorama(pack, item) for item in groups["panoramas"]),
        body_uv=body_uv,
    )


def _garment(pack: _Pack, group: str, item: dict, num_body_faces: int) -> Garment:
    place = f"{group}/{item['name']}"
    weights = pack.arrays[f"{place}/lbs_weights"].astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # refused below
        share = weights / weights.sum(axis=1, keepdims=True)
    hidden = np.unpackbits(pack.arrays[f"{place}/hidden_faces"], count=num_body_faces)
    return Garment(
        **item,
        kind=GROUPS[group],
        v_template=pack.lengths(f"{place}/v_template"),
        shapedirs=pack.lengths(f"{place}/shapedirs"),
        lbs_indices=pack.integers(f"{place}/lbs_indices"),
        lbs_weights=pack.finite(f"{place}/lbs_weights", share),
        anchor=pack.integers(f"{place}/anchor"),
        faces=pack.integers(f"{place}/faces"),
        uv=pack.uv(f"{place}/uv"),
        texture=pack.image(f"{place}/texture", alpha=True),
        hidden_faces=hidden.astype(bool),
    )


def _panorama(pack: _Pack, item: dict) -> Panorama:
    stored = pack.image(f"panoramas/{item['name']}/image")
    light = {
        key: pack.finite(f"{item['name']}/{key}", np.array(item[key], np.float32))
        for key in ("sun_direction", "sun_color", "ambient")
    }
    radiance = (item["scale"] * (np.arange(256) / 255) ** GAMMA).astype(np.float32)
    pack.finite(f"{item['name']}/scale", radiance)
    return Panorama(name=item["name"], image=radiance[stored], **light)
