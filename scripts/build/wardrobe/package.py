"""Write the wardrobe's file: small arrays, as `smpler.datasets.engine.wardrobe` reads them."""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from smpler.datasets.engine.wardrobe import FORMAT, GAMMA, LENGTH_UNIT, Garment, Panorama, Skin
from smpler.models.body import Body
from smpler.utils.joints import SMPL_NAMES

LICENSE = (
    "CC0 1.0: clothes, hair and skins of MakeHuman's assets (makehumancommunity), panoramas of "
    "Poly Haven. Underwear, brows and eyes are our own, and CC0 as well. See NOTICE."
)
WEBP_QUALITY = 85
PANORAMA_QUALITY = 90
UV_LEVELS = 65535
"""Shares in [0, 1] are stored in 16 bits."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of all members of the archive: the same sources give the same file."""


@dataclass(frozen=True, eq=False)
class Seams:
    """Texture coordinates as they are stored: a table, and indices into it."""

    table: Float[np.ndarray, "m 2"]
    faces: Int[np.ndarray, "f 3"]


class Packer:
    """Collects arrays, and an index that describes them."""

    def __init__(self, body: Body, sources: dict[str, dict[str, str]]):
        self.arrays: dict[str, np.ndarray] = {}
        self.groups: dict[str, list[dict]] = {}
        self.index = {
            "format": FORMAT,
            "license": LICENSE,
            "body_sha256": body.sha256,
            "sources": sources,
            "groups": self.groups,
        }

    def add_body_uv(self, uv: Float[np.ndarray, "f 3 2"]) -> None:
        """Add where the body's faces are on a skin."""
        table, faces = np.unique(_levels(uv.reshape(-1, 2)), axis=0, return_inverse=True)
        self._add_seams("body/uv", Seams(table / UV_LEVELS, faces.reshape(-1, 3)))

    def add_garment(self, group: str, garment: Garment, seams: Seams) -> None:
        """Add a garment; its `uv` are written as `seams`."""
        place = f"{group}/{garment.name}"
        self._note(group, name=garment.name, suits=garment.suits)
        self._add_seams(f"{place}/uv", seams)
        fields = {
            "v_template": _steps(garment.v_template),
            "shapedirs": _steps(garment.shapedirs),
            "lbs_indices": garment.lbs_indices.astype(np.uint8),
            "lbs_weights": _levels(garment.lbs_weights),
            "anchor": garment.anchor.astype(np.uint16),
            "faces": garment.faces.astype(np.uint16),
            "texture": _webp(garment.texture, WEBP_QUALITY),
            "hidden_faces": np.packbits(garment.hidden_faces),
        }
        self.arrays |= {f"{place}/{field}": array for field, array in fields.items()}

    def add_skin(self, skin: Skin) -> None:
        """Add a skin."""
        self._note("skins", name=skin.name, suits=skin.suits)
        self.arrays[f"skins/{skin.name}/texture"] = _webp(skin.texture, WEBP_QUALITY)

    def add_panorama(self, panorama: Panorama) -> None:
        """Add a panorama; its light goes into the index."""
        scale = float(panorama.image.max())
        stored = np.round(255 * (panorama.image / scale) ** (1 / GAMMA)).astype(np.uint8)
        fields = ("sun_direction", "sun_color", "ambient")
        light = {field: _rounded(getattr(panorama, field)) for field in fields}
        self._note("panoramas", name=panorama.name, scale=scale, **light)
        self.arrays[f"panoramas/{panorama.name}/image"] = _webp(stored, PANORAMA_QUALITY)

    def write(self, path: Path) -> None:
        """Write the npz under a temporary name, then put it in place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        with zipfile.ZipFile(temporary, "w", compresslevel=9) as archive:
            for name, array in ({"index": np.array(json.dumps(self.index))} | self.arrays).items():
                member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w") as file:
                    np.lib.format.write_array(file, array)
        os.replace(temporary, path)

    def _note(self, group: str, **item) -> None:
        self.groups.setdefault(group, []).append(item)

    def _add_seams(self, name: str, seams: Seams) -> None:
        self.arrays[f"{name}_table"] = _levels(seams.table)
        self.arrays[f"{name}_faces"] = seams.faces.astype(np.uint16)


def four_weights(lbs_weights: Float[np.ndarray, "n 24"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (n, 4) of the strongest joints, and their weights, which sum to 1."""
    assert lbs_weights.shape[1] == len(SMPL_NAMES)
    indices = np.argsort(-lbs_weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(lbs_weights, indices, axis=1)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def _steps(lengths: np.ndarray) -> Int[np.ndarray, "*shape"]:
    steps = np.round(lengths / LENGTH_UNIT)
    assert np.abs(steps).max() < 2**15, "a length does not fit into 16 bits"
    return steps.astype(np.int16)


def _levels(shares: np.ndarray) -> Int[np.ndarray, "*shape"]:
    return np.round(np.clip(shares, 0, 1) * UV_LEVELS).astype(np.uint16)


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(np.float64), 5).tolist()


def _webp(image: UInt8[np.ndarray, "h w c"], quality: int) -> UInt8[np.ndarray, "n"]:
    order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    image = cv2.cvtColor(image, order)
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].ravel()
