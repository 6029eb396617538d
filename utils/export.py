"""The results of a run for one person, as npz, json, obj, glb and pictures.

`PersonResult` is the schema: its fields are the keys of both the npz and the json file.
docs/output.md lists them for users; `tests/utils/test_export.py` keeps the two equal.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from smpler.utils import mesh_files
from smpler.utils.geometry import vertex_normals
from smpler.utils.image import STRIP_PIXELS, CropWindow, PngWriter, write_image
from smpler.utils.rasterizer import rasterize
from smpler.utils.visualize import (
    MESH_COLOR,
    Color,
    Rasterizer,
    overlay,
    palette,
    side_by_side,
    side_view,
)

SCHEMA = "smpler-person/1"
MAX_WHOLE = 2**24
"""Pixels of a photo up to which its pictures are made whole; of a larger one, strip by strip."""
CAMERA_TO_Y_UP = np.array([1.0, -1.0, -1.0])
"""From the camera's frame (y down, z away) to a viewer's (y up, facing +z): half a turn about x."""


@dataclass(frozen=True)
class PersonResult:
    """One person in one photo.

    3D is in the camera's frame: metres, x right, y down, z away. 2D is in photo pixels: x right,
    y down, (0, 0) is the top-left corner of the photo.
    """

    schema: str
    """Name and version of this list of keys."""
    version: str
    """Version of the program."""
    image: str
    """Name of the photo's file."""
    image_size: Int[np.ndarray, "2"]
    """Width and height of the photo, pixels, after EXIF rotation."""
    person: int
    """Number of the person in the photo, from 0, best detection first."""
    box: Float[np.ndarray, "4"]
    """x, y, width, height of the person, pixels."""
    box_source: str
    """`detector`, `given` by hand, or `photo` when nobody was found."""
    box_score: float
    """The detector's confidence in [0, 1]; 1 for a given box, 0 for the whole photo."""
    crop: Int[np.ndarray, "4"]
    """x, y, width, height of the square that the model saw, pixels."""
    body: str
    """Which body: `open`, `smpl`, `checkpoint` or the name of a file."""
    body_sha256: str
    """Hash of the body's arrays."""
    weights: str
    """The file of weights, or `initial parameters`."""
    weights_sha256: str
    """Hash of that file; empty without one."""
    pose: Float[np.ndarray, "72"]
    """SMPL pose: 24 axis-angle rotations, radians; the first is the global one."""
    rotmat: Float[np.ndarray, "24 3 3"]
    """The same as rotation matrices."""
    betas: Float[np.ndarray, "10"]
    """SMPL shape, standard deviations."""
    cam: Float[np.ndarray, "3"]
    """Crop camera: scale s, tx, ty [m]; crop coordinate = s * (x + tx), [-1, 1] edge to edge."""
    focal_length: float
    """Of the full-image camera, pixels."""
    principal_point: Float[np.ndarray, "2"]
    """Of the full-image camera: the photo's middle, pixels."""
    translation: Float[np.ndarray, "3"]
    """Added to 3D points to place them before the full-image camera, metres."""
    vertices: Float[np.ndarray, "v 3"]
    """The posed mesh, metres; origin is SMPL's own, not the pelvis."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles, counter-clockwise seen from outside."""
    joints_3d: Float[np.ndarray, "24 3"]
    """SMPL's joints, metres; `joints_3d[0]` is the root."""
    joints_2d: Float[np.ndarray, "24 2"]
    """Their places in the photo by the crop camera, pixels."""
    joint_names: tuple[str, ...]
    """Names of the 24 joints."""
    keypoints_3d: Float[np.ndarray, "14 3"] | None
    """The 14 evaluated keypoints, metres; absent when the body has no keypoint regressor."""
    keypoints_2d: Float[np.ndarray, "14 2"] | None
    """Their places in the photo, pixels; absent likewise."""
    keypoint_names: tuple[str, ...]
    """Names of the 14 keypoints."""

    def to_dict(self) -> dict:
        """Return the fields that have a value, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def save(
        self,
        folder: str | Path,
        stem: str,
        photo: UInt8[np.ndarray, "h w 3"] | None = None,
        color: Color = MESH_COLOR,
        rasterizer: Rasterizer = rasterize,
    ) -> None:
        """Write numbers, mesh and pictures: what the demo writes of a person.

        STEM_N.npz, .json, .obj, .glb, STEM_N_side.png and, over the photo, STEM_N_overlay.png; N is
        the number `person`.

        Args:
            folder: is made when it is not there.
            stem: of the files' names.
            photo: RGB, what the person was estimated on; None leaves the overlay out.
            color: of the body in the pictures.
            rasterizer: finds the triangles of the pictures.
        """
        start = Path(folder) / f"{stem}_{self.person}"
        start.parent.mkdir(parents=True, exist_ok=True)
        if photo is not None:
            overlay_path = start.with_name(f"{start.name}_overlay.png")
            write_overlay(photo, [self], [color], rasterizer, overlay_path)
        self._save(start, color, rasterizer)

    def _save(self, start: Path, color: Color, rasterizer: Rasterizer) -> None:
        """Write the files whose names begin with `start`, without the overlay."""
        side = side_view(self.vertices, self.faces, color, rasterizer=rasterizer)
        write_image(start.with_name(f"{start.name}_side.png"), side)
        for suffix, save in (
            ("npz", save_npz),
            ("json", save_json),
            ("obj", save_mesh),
            ("glb", save_mesh),
        ):
            save(start.with_name(f"{start.name}.{suffix}"), self)


def save_people(
    people: Sequence[PersonResult],
    photo: UInt8[np.ndarray, "h w 3"],
    folder: str | Path,
    stem: str,
    rasterizer: Rasterizer = rasterize,
) -> Path:
    """Write STEM_out.png, the photo beside all bodies over it, and each person's files.

    Returns:
        The path of STEM_out.png.
    """
    path = Path(folder) / f"{stem}_out.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = palette(len(people))
    starts = [Path(folder) / f"{stem}_{person.person}" for person in people]
    overlays = [start.with_name(f"{start.name}_overlay.png") for start in starts]
    first = overlays[0] if len(people) == 1 else None
    write_overlay(photo, people, colors, rasterizer, first, beside=path)
    for person, color, start, overlay_path in zip(people, colors, starts, overlays, strict=True):
        if first is None:
            write_overlay(photo, [person], [color], rasterizer, overlay_path)
        person._save(start, color, rasterizer)
    return path


def write_overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    people: Sequence[PersonResult],
    colors: Sequence[Color],
    rasterizer: Rasterizer = rasterize,
    path: Path | None = None,
    beside: Path | None = None,
) -> None:
    """Draw people over their photo and write it as PNG.

    Args:
        photo: RGB.
        people: who is drawn.
        colors: one for each person.
        rasterizer: finds the triangles.
        path: of the overlay; None leaves it out.
        beside: path of the photo and its overlay side by side; None leaves it out.
    """
    height, width = photo.shape[:2]
    if height * width <= MAX_WHOLE:
        drawn = draw_people(photo, people, colors, rasterizer)
        if beside is not None:
            write_image(beside, side_by_side([photo, drawn]))
        if path is not None:
            write_image(path, drawn)
        return
    rows = max(1, STRIP_PIXELS // width)
    with ExitStack() as stack:
        pair = alone = None
        if beside is not None:
            pair = stack.enter_context(PngWriter(beside, 2 * width, height))
        if path is not None:
            alone = stack.enter_context(PngWriter(path, width, height))
        for top in range(0, height, rows):
            strip = photo[top : top + rows]
            drawn = draw_people(strip, people, colors, rasterizer, top)
            if pair is not None:
                pair.write(side_by_side([strip, drawn]))
            if alone is not None:
                alone.write(drawn)


def draw_people(
    photo: UInt8[np.ndarray, "h w 3"],
    people: Sequence[PersonResult],
    colors: Sequence[Color],
    rasterizer: Rasterizer = rasterize,
    top: int = 0,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw people over their photo, or over its rows from `top` on; the nearest covers others."""
    placed = [
        vertices_in_photo(person.vertices, person.cam, CropWindow(*person.crop.tolist()))
        - [0, top, 0]
        for person in people
    ]
    distances = [float(person.translation[2]) for person in people]
    return overlay(photo, placed, people[0].faces, colors, distances, rasterizer)


def vertices_in_photo(
    vertices: Float[np.ndarray, "v 3"], cam: Float[np.ndarray, "3"], window: CropWindow
) -> Float[np.ndarray, "v 3"]:
    """Return photo pixels by the crop camera, and depth in the same unit."""
    scale, *shift = cam
    places = window.to_photo(scale * (vertices[:, :2] + np.array(shift)))
    depth = vertices[:, 2:] * scale * window.width / 2
    return np.concatenate([places, depth], axis=1)


def save_npz(path: Path, person: PersonResult) -> None:
    """Write all fields as arrays; `numpy.load` reads them without pickle."""
    arrays = {key: np.asarray(value) for key, value in person.to_dict().items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def save_json(path: Path, person: PersonResult) -> None:
    """Write all fields; numbers rounded to 6 decimals (micrometres, millionths of a pixel)."""
    path.write_text(json.dumps({key: _plain(value) for key, value in person.to_dict().items()}))


def save_mesh(path: Path, person: PersonResult) -> None:
    """Write the posed mesh as .obj or .glb: metres, y up, facing +z when it faces the camera."""
    corners = person.vertices * CAMERA_TO_Y_UP
    if path.suffix == ".obj":
        path.write_text(mesh_files.obj(corners, person.faces))
        return
    normals = vertex_normals(torch.from_numpy(corners)[None], torch.from_numpy(person.faces))
    path.write_bytes(mesh_files.glb(corners, normals[0].numpy(), person.faces))


def _plain(value):
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.round(value.astype(np.float64), 6).tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return round(value, 6) if isinstance(value, float) else value
