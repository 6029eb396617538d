"""The results of a run for one person, as npz, json, obj, glb and pictures; a photo's people.

`PersonResult` is the schema: its fields are the keys of the npz file, and those of the json file,
which leaves the mesh out unless it is asked for. docs/output.md lists them for users;
`tests/utils/test_export.py` keeps the two equal.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from smpler.utils.drawing.overlay import PlacedBody, place_body, write_overlay
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.drawing.visualize import MESH_COLOR, Color, Rasterizer, palette, side_view
from smpler.utils.files.arrays import read_npz
from smpler.utils.files.meshes import Part, PhotoCamera, glb, obj
from smpler.utils.files.skinned import SkinnedPart, skinned_glb
from smpler.utils.files.whole import replacing_set, write_bytes_whole, write_whole
from smpler.utils.geometry import CAMERA_TO_Y_UP
from smpler.utils.image import write_image
from smpler.utils.rig import Motion, Rig, normals_of

SCHEMA = "smpler-person/2"
MESH_FIELDS = ("vertices", "faces")
"""What the json leaves out unless it is asked for."""
ENDINGS = ("_overlay.png", "_side.png", ".json", ".obj", ".glb", ".npz")
"""Of the files of a person."""
NOT_WRITTEN = ("rig",)
"""Fields of `PersonResult` that are no keys of npz and json."""


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
    """Number of the person in the photo, from 0: most prominent first, or in the order of given
    boxes."""
    box: Float[np.ndarray, "4"]
    """x, y, width, height of the person, pixels."""
    box_source: str
    """`detector`, `given` by hand, or `photo`: a crop that plainly shows one person."""
    box_score: float
    """The detector's confidence in [0, 1], or for `photo` the landmark network's; 1 for a given
    box."""
    quality: float
    """How well the body is likely to be right, in [0, 1]; it ranks people by their error."""
    fit: str
    """The fit to landmarks: `applied`; `refused` (no body near the network's reaches them);
    `no landmarks` (none that counts was seen); or `off`."""
    fit_residual: float | None
    """Root mean square distance between the visible landmarks and the body's points as the
    full-image camera sees them, pixels; absent without landmarks."""
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
    focal_length_source: str
    """`given`, `exif`, or `diagonal`: a guess, the length of the photo's diagonal."""
    principal_point: Float[np.ndarray, "2"]
    """Of the full-image camera: the photo's middle, pixels."""
    translation: Float[np.ndarray, "3"]
    """Added to 3D points to place them before the full-image camera, metres. By least squares over
    the 24 joints, so that it sees them where the network does; the fit changes it further."""
    vertices: Float[np.ndarray, "v 3"]
    """The posed mesh, metres; origin is SMPL's own, not the pelvis."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles, counter-clockwise seen from outside."""
    joints_3d: Float[np.ndarray, "24 3"]
    """SMPL's joints, metres; `joints_3d[0]` is the root."""
    joints_2d: Float[np.ndarray, "24 2"]
    """Their places in the photo by the full-image camera, pixels."""
    joints_confidence: Float[np.ndarray, "24"]
    """How sure the landmark network is to see each, in [0, 1]; 0 where it recognises nobody."""
    joints_std: Float[np.ndarray, "24"] | None
    """How far off each joint relative to the first is expected to be, metres: root mean square
    distance; absent without landmarks or a fit."""
    joint_names: tuple[str, ...]
    """Names of the 24 joints."""
    keypoints_3d: Float[np.ndarray, "14 3"] | None
    """The 14 evaluated keypoints, metres; absent when the body has no keypoint regressor."""
    keypoints_2d: Float[np.ndarray, "14 2"] | None
    """Their places in the photo by the full-image camera, pixels; absent likewise."""
    keypoints_confidence: Float[np.ndarray, "14"]
    """As `joints_confidence`."""
    keypoint_names: tuple[str, ...]
    """Names of the 14 keypoints."""
    rig: Rig | None = field(default=None, repr=False)
    """The body at rest in the person's shape, and its joints: with it a glb can be posed anew;
    without it a glb is a mesh."""

    def to_dict(self) -> dict:
        """Return the fields that have a value, by name, without the rig."""
        names = [field.name for field in fields(self) if field.name not in NOT_WRITTEN]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def _rest_mesh(self) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"]]:
        """Vertices and normals that the rig bends into the person's mesh."""
        assert self.rig is not None
        return self.rig.unposed(self.vertices, self.rotmat)

    def save(
        self,
        folder: str | Path,
        stem: str,
        photo: UInt8[np.ndarray, "h w 3"] | None = None,
        color: Color = MESH_COLOR,
        rasterizer: Rasterizer = rasterize,
        json_mesh: bool = False,
    ) -> None:
        """Write numbers, mesh and pictures: what the demo writes of a person.

        STEM_N.npz, .json, .obj, .glb, STEM_N_side.png and, over the photo, STEM_N_overlay.png; N is
        the number `person`. They appear together, the npz last, when all are written.

        Args:
            folder: is made when it is not there.
            stem: of the files' names.
            photo: RGB, what the person was estimated on; None leaves the overlay out.
            color: of the body in the pictures and the glb.
            rasterizer: finds the triangles of the pictures.
            json_mesh: whether the json holds the mesh as well.

        Raises:
            OSError: a file could not be written; older ones stay as they are.
        """
        start = Path(folder) / f"{stem}_{self.person}"
        start.parent.mkdir(parents=True, exist_ok=True)
        with replacing_set(start.with_name(f"{start.name}.npz"), _files_of(start)) as part:
            if photo is not None:
                overlay_path = part / f"{start.name}_overlay.png"
                write_overlay(photo, [place_person(self, color)], rasterizer, overlay_path)
            self._save(part / start.name, color, rasterizer, json_mesh)

    def _save(self, start: Path, color: Color, rasterizer: Rasterizer, json_mesh: bool) -> None:
        """Write the files whose names begin with `start`, without the overlay."""
        side = side_view(self.vertices, self.faces, color, rasterizer=rasterizer)
        write_image(start.with_name(f"{start.name}_side.png"), side)
        save_npz(start.with_name(f"{start.name}.npz"), self)
        save_json(start.with_name(f"{start.name}.json"), self, json_mesh)
        for suffix in ("obj", "glb"):
            save_mesh(start.with_name(f"{start.name}.{suffix}"), self, color)


def save_people(
    people: Sequence[PersonResult],
    photo: UInt8[np.ndarray, "h w 3"],
    folder: str | Path,
    stem: str,
    rasterizer: Rasterizer = rasterize,
    json_mesh: bool = False,
) -> Path:
    """Write all files of a photo: of everybody together, and of each person.

    Everybody together is STEM_out.png, the photo beside all bodies over it, and STEM_scene.glb, all
    bodies before the photo's camera. The files appear together when all are written, STEM_out.png
    last; those of an earlier run of the same photo go, also of people who are not found any more.

    Args:
        people: of one photo; at least one, as callers deal with a photo without people.
        photo: RGB.
        folder: is made when it is not there.
        stem: of the files' names.
        rasterizer: finds the triangles of the pictures.
        json_mesh: whether each json holds the mesh as well.

    Returns:
        The path of STEM_out.png.

    Raises:
        OSError: a file could not be written; older ones stay as they are.
    """
    assert people, f"{stem}: nobody to save"
    path = Path(folder) / f"{stem}_out.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = palette(len(people))
    bodies = [place_person(person, color) for person, color in zip(people, colors, strict=True)]
    starts = reversed(_earlier(path.parent, stem, people))  # a kill leaves the first ones
    older = [file for start in starts for file in _files_of(start)]
    with replacing_set(path, older) as part:
        starts = [part / f"{stem}_{person.person}" for person in people]
        overlays = [start.with_name(f"{start.name}_overlay.png") for start in starts]
        first = overlays[0] if len(people) == 1 else None
        write_overlay(photo, bodies, rasterizer, first, beside=part / path.name)
        if first is None:
            for body, overlay_path in zip(bodies, overlays, strict=True):
                write_overlay(photo, [body], rasterizer, overlay_path)
        save_scene(part / f"{stem}_scene.glb", people, colors)
        for person, color, start in zip(people, colors, starts, strict=True):
            person._save(start, color, rasterizer, json_mesh)
    return path


def _earlier(folder: Path, stem: str, people: Sequence[PersonResult]) -> list[Path]:
    """Return the beginnings of the names of a photo's people, those of an earlier run as well."""
    starts = [folder / f"{stem}_{person.person}" for person in people]
    number = 0
    while True:
        start = folder / f"{stem}_{number}"
        try:
            said = read_npz(start.with_name(f"{start.name}.npz"), ("schema", "image"))
        except (OSError, ValueError):
            if number >= len(people):
                return starts
            said = {}
        of = str(said.get("schema")), str(said.get("image"))
        if of == (SCHEMA, people[0].image) and start not in starts:
            starts.append(start)
        number += 1


def _files_of(start: Path) -> list[Path]:
    """Return what is written of a person; the npz, by which `_earlier` goes, is the last."""
    return [start.with_name(start.name + ending) for ending in ENDINGS]


def place_person(person: PersonResult, color: Color = MESH_COLOR) -> PlacedBody:
    """Place a person where the full-image camera sees them in the photo."""
    return place_body(
        person.vertices + person.translation,
        person.faces,
        color,
        person.focal_length,
        person.principal_point,
    )


def save_npz(path: Path, person: PersonResult) -> None:
    """Write all fields as arrays; `numpy.load` reads them without pickle."""
    arrays = {key: np.asarray(value) for key, value in person.to_dict().items()}
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def save_json(path: Path, person: PersonResult, mesh: bool = False) -> None:
    """Write the fields; numbers rounded to 6 decimals (micrometres, millionths of a pixel).

    Args:
        path: of the file.
        person: whose fields.
        mesh: whether `vertices` and `faces` are written as well, a hundred times the other numbers.
    """
    left_out = () if mesh else MESH_FIELDS
    content = {key: _plain(x) for key, x in person.to_dict().items() if key not in left_out}
    write_bytes_whole(path, json.dumps(content).encode())


def save_mesh(path: Path, person: PersonResult, color: Color = MESH_COLOR) -> None:
    """Write the posed body as .obj or .glb: metres, y up, facing +z when it faces the camera.

    The origin is SMPL's own. Only the .glb has a name, `person_N`, a colour and, when the person
    has a rig, a skeleton in the person's pose.
    """
    if path.suffix == ".obj":
        text = obj(person.vertices * CAMERA_TO_Y_UP, person.faces)
        write_bytes_whole(path, text.encode())
        return
    write_bytes_whole(path, _glb([person], [color]))


def save_scene(path: Path, people: Sequence[PersonResult], colors: Sequence[Color]) -> None:
    """Write the people of a photo as one .glb: metres, y up, each where the photo shows them.

    The nodes are `person_0`, `person_1` and so on, and `photo_camera` at the origin: what it sees
    is the overlay.
    """
    first = people[0]
    width, height = first.image_size.tolist()
    camera = PhotoCamera(first.focal_length, (width, height))
    write_bytes_whole(path, _glb(people, colors, camera))


def _glb(
    people: Sequence[PersonResult], colors: Sequence[Color], camera: PhotoCamera | None = None
) -> bytes:
    """Return people as a .glb file, placed before the camera, or at SMPL's origin without one."""
    places = [(0.0, 0.0, 0.0)] * len(people)
    if camera is not None:
        places = [tuple((person.translation * CAMERA_TO_Y_UP).tolist()) for person in people]
    if any(person.rig is None for person in people):
        drawn = zip(people, colors, places, strict=True)
        return glb([_part(person, color, place) for person, color, place in drawn], camera)
    drawn = zip(people, colors, places, strict=True)
    return skinned_glb([_skinned(person, color, place) for person, color, place in drawn], camera)


def _part(person: PersonResult, color: Color, place: tuple[float, float, float]) -> Part:
    """Return a person's mesh, y up."""
    corners = person.vertices * CAMERA_TO_Y_UP
    normals = normals_of(corners, person.faces)
    return Part(f"person_{person.person}", corners, normals, person.faces, color, place)


def _skinned(person: PersonResult, color: Color, place: tuple[float, float, float]) -> SkinnedPart:
    """Return a person with a rig whose rest mesh the pose bends into the person's own, y up."""
    rig = person.rig
    assert rig is not None
    motion = Motion.of(person.rotmat[None], rig.joints[:1])
    name = f"person_{person.person}"
    return SkinnedPart(name, rig, *person._rest_mesh, motion, color, translation=place)


def _plain(value):
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.round(value.astype(np.float64), 6).tolist()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return round(value, 6) if isinstance(value, float) else value
