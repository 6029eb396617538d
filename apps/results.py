"""Reads people from result files: a photo's person, or a person through a clip.

The files may come from anywhere, so everything that is used is checked: a damaged or foreign file
is a `ValueError` in one sentence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from smpler.models.body import SMPL_FILES, load_body, open_body
from smpler.models.smpl import SMPL
from smpler.utils.export import SCHEMA as PERSON_SCHEMA
from smpler.utils.files.arrays import npz_names, read_npz
from smpler.utils.image import MAX_SIDE
from smpler.utils.joints import NUM_BETAS, NUM_JOINTS
from smpler.utils.paths import display
from smpler.video.track_result import SCHEMA as TRACK_SCHEMA

Shape = tuple[int | str, ...]
"""Of an array; names stand for lengths that must agree: T moments, V vertices, F triangles."""

IN_PHOTO: dict[str, Shape] = {"image_size": (2,), "person": (), "quality": (), "focal_length": ()}
IN_PHOTO |= {"translation": (3,), "joints_3d": (NUM_JOINTS, 3)}
IN_PHOTO |= {"vertices": ("V", 3), "faces": ("F", 3)}
IN_CLIP: dict[str, Shape] = {"image_size": (2,), "track": (), "quality": ("T",)}
IN_CLIP |= {"focal_length": (), "translation": ("T", 3), "joints_3d": ("T", NUM_JOINTS, 3)}
IN_CLIP |= {"frames": ("T",), "times": ("T",), "is_seen": ("T",)}
IN_CLIP |= {"rotmat": ("T", NUM_JOINTS, 3, 3), "betas": (NUM_BETAS,)}
MESHES: dict[str, Shape] = {"vertices": ("T", "V", 3), "faces": ("F", 3)}
"""What a clip's file may leave out."""
WHOLE_NUMBERS = {"image_size", "person", "track", "frames", "faces"}
TEXTS = {PERSON_SCHEMA: ("image",), TRACK_SCHEMA: ("video", "body", "body_sha256")}

MAX_LENGTHS = {"T": 200_000, "V": 200_000, "F": 400_000}
MAX_TEXT = 1000
SAME_TIME = 1e-4
"""Up to which two moments are one, seconds."""
LARGEST, LARGEST_WHOLE = 1e5, 2**31
"""Of a number, and of a whole one: a browser computes in 32 bits."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a photo (T = 1) or through a clip, placed before the full-image camera.

    Everything 3D is in the camera's frame: metres, x right, y down, z away.
    """

    path: Path
    """The file."""
    number: int
    """Of the person in the photo, or of the track in the clip."""
    media: str
    """Name of the photo's or clip's file."""
    is_clip: bool
    image_size: tuple[int, int]
    """Width, height; pixels."""
    focal_length: float
    """Pixels."""
    frames: Int[np.ndarray, "t"]
    """Numbers of the frames; of a photo, 0."""
    times: Float[np.ndarray, "t"]
    """Seconds, rising."""
    is_seen: Bool[np.ndarray, "t"]
    """False where a gap is bridged."""
    quality: Float[np.ndarray, "t"]
    joints: Float[np.ndarray, "t 24 3"]
    translation: Float[np.ndarray, "t 3"]
    vertices: Float[np.ndarray, "t v 3"] | None
    """Without the translation; None where only the pose is known."""
    faces: Int[np.ndarray, "f 3"] | None
    rotmat: Float[np.ndarray, "t 24 3 3"] | None
    """A clip's; None for a photo, whose file holds the vertices."""
    betas: Float[np.ndarray, "10"] | None
    body: str
    body_sha256: str

    @property
    def name(self) -> str:
        """What the viewer calls the person."""
        return f"{'track' if self.is_clip else 'person'} {self.number}"

    def moment(self, seconds: float) -> int | None:
        """Return which of the T moments is at a time; None when the person is not there then."""
        index = int(np.searchsorted(self.times, seconds - SAME_TIME))
        is_there = index < len(self.times) and self.times[index] <= seconds + SAME_TIME
        return index if is_there else None


class Bodies:
    """Poses the people of clips whose files hold no mesh; finds each one's body by its hash.

    Args:
        given: the user's file of a body; None takes the open body, or SMPL from meta_data/.
    """

    def __init__(self, given: Path | None = None):
        self.given = given

    @cached_property
    def _layers(self) -> dict[str, SMPL]:
        if self.given is not None:
            bodies = [load_body(self.given)]
        else:
            bodies = [open_body(), *(load_body(path) for path in SMPL_FILES if path.is_file())]
        return {body.sha256: SMPL(body).eval() for body in bodies}

    def layer(self, person: Person) -> SMPL:
        """Return the body that a person was estimated with.

        Raises:
            ValueError: it is not at hand.
        """
        if person.body_sha256 in self._layers:
            return self._layers[person.body_sha256]
        what = f"{display(person.path)} was made with the body {person.body!r}"
        if self.given is not None:
            raise ValueError(f"{what}, which is not that of --body {display(self.given)}.")
        raise ValueError(f"{what}, which is not here; give its file with --body FILE.")

    def mesh(self, person: Person, moment: int) -> Float[np.ndarray, "v 3"]:
        """Return the posed vertices of one of the T moments, before the camera."""
        if person.vertices is not None:
            return person.vertices[moment] + person.translation[moment]
        assert person.rotmat is not None and person.betas is not None
        rotmat, betas = (torch.from_numpy(x).float() for x in (person.rotmat, person.betas))
        with torch.inference_mode():
            posed = self.layer(person)(rotmat[moment : moment + 1], betas[None]).vertices
        assert posed is not None
        return posed[0].numpy() + person.translation[moment]

    def faces(self, person: Person) -> Int[np.ndarray, "f 3"]:
        """Return the triangles of a person's mesh."""
        return self.layer(person).body.faces if person.faces is None else person.faces


def find_results(paths: Iterable[Path]) -> list[Person]:
    """Read the people of files, of all results in folders, and of stems such as `outputs/im01`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged or no result, or a folder holds no result.
    """
    once: dict[Path, Person] = {}
    for path in paths:
        for file in _files_of(path):
            once.setdefault(file.absolute(), read_person(file))
    return list(once.values())


def _files_of(path: Path) -> Sequence[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.npz")) if _schema_of(file) in TEXTS]
        if not files:
            raise ValueError(f"{display(path)} holds no results, such as NAME_0.npz.")
        return files
    if path.is_file():
        return [path]
    if path.parent.is_dir():
        start = f"{path.name}_"
        files = [f for f in sorted(path.parent.glob("*.npz")) if f.name.startswith(start)]
        files = [file for file in files if _is_number(file.stem.removeprefix(start))]
        if files:
            return files
    raise FileNotFoundError(
        f"{display(path)} is missing; give a result such as outputs/NAME_0.npz, or its folder."
    )


def _is_number(text: str) -> bool:
    return text.removeprefix("track").isdecimal()


def _schema_of(path: Path) -> str:
    """Return the schema that a file names; nothing for a file of another kind."""
    try:
        return _text(read_npz(path, ("schema",)), "schema")
    except (OSError, ValueError):
        return ""


def read_person(path: Path) -> Person:
    """Read one result file.

    Raises:
        ValueError: it is damaged, of another kind, or its numbers cannot be a person's.
    """
    names = npz_names(path)
    said = read_npz(path, ("schema",))
    try:
        schema = _text(said, "schema") if said else ""
        if schema not in TEXTS:
            kind = f"its schema is {schema!r}" if schema else "it has no schema"
            raise ValueError(f"{kind}, but {' or '.join(TEXTS)} was expected")
        is_clip = schema == TRACK_SCHEMA
        shapes = dict(IN_CLIP if is_clip else IN_PHOTO)
        if is_clip and MESHES.keys() <= set(names):
            shapes |= MESHES
        missing = [key for key in (*shapes, *TEXTS[schema]) if key not in names]
        if missing:
            raise ValueError(f"it has no {missing[0]!r}")
    except ValueError as error:
        raise ValueError(f"{display(path)} cannot be shown: {error}.") from error
    arrays = read_npz(path, (*shapes, *TEXTS[schema]), advice="it cannot be shown")
    try:
        texts = {key: _text(arrays, key) for key in TEXTS[schema]}
        _check(arrays, shapes)
        return _person(path, is_clip, arrays, texts)
    except ValueError as error:
        raise ValueError(f"{display(path)} cannot be shown: {error}.") from error


def _text(archive: Mapping[str, np.ndarray], key: str) -> str:
    value = archive.get(key, np.zeros(()))
    if value.dtype.kind != "U" or value.ndim or len(str(value)) > MAX_TEXT:
        raise ValueError(f"its {key!r} is no short text")
    return str(value)


def _check(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> None:
    """Raise a ValueError when arrays do not fit each other or cannot be a person's."""
    lengths: dict[str, int] = {}
    for key, expected in shapes.items():
        array = arrays[key]
        kinds = {"is_seen": "b"}.get(key, "iu" if key in WHOLE_NUMBERS else "fiu")
        fits = array.dtype.kind in kinds and array.ndim == len(expected)
        for size, entry in zip(array.shape, expected, strict=False):
            known = lengths.setdefault(entry, size) if isinstance(entry, str) else entry
            fits &= size == known
        if not fits:
            raise ValueError(f"its {key!r} is {array.dtype} of shape {array.shape}")
        largest = LARGEST_WHOLE if key in WHOLE_NUMBERS else LARGEST
        if not ((array >= -largest) & (array <= largest)).all():  # NaN is neither
            raise ValueError(f"its {key!r} holds numbers that are not finite, or huge")
    for name, most in MAX_LENGTHS.items():
        if not 1 <= lengths.get(name, 1) <= most:
            raise ValueError(f"its arrays have {lengths[name]} entries, but 1 to {most} are read")
    if "faces" in arrays and not 0 <= arrays["faces"].min() <= arrays["faces"].max() < lengths["V"]:
        raise ValueError("its 'faces' name vertices that are not there")
    if arrays["image_size"].min() < 1 or arrays["image_size"].max() > MAX_SIDE:
        raise ValueError(f"its picture's size is {arrays['image_size'].tolist()}")
    if arrays["focal_length"] <= 0:
        raise ValueError(f"its focal length is {float(arrays['focal_length'])}")
    if "frames" in arrays:
        is_falling = (np.diff(arrays["frames"].astype(np.int64)) < 0).any()
        if arrays["frames"].min() < 0 or is_falling:
            raise ValueError("its frames do not rise")
        if (np.diff(arrays["times"].astype(np.float64)) < 2 * SAME_TIME).any():
            raise ValueError("its times do not rise")


def _person(
    path: Path, is_clip: bool, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]
) -> Person:
    def stacked(key: str) -> np.ndarray:
        """Return an array with a moment for each frame; a photo has one."""
        return arrays[key] if is_clip else arrays[key][None]

    width, height = arrays["image_size"].tolist()
    translation = stacked("translation").astype(np.float32)
    return Person(
        path,
        int(arrays["track" if is_clip else "person"]),
        PurePath(texts["video" if is_clip else "image"]).name,
        is_clip,
        (width, height),
        float(arrays["focal_length"]),
        arrays["frames"].astype(np.int64) if is_clip else np.zeros(1, np.int64),
        arrays["times"].astype(np.float64) if is_clip else np.zeros(1),
        arrays["is_seen"] if is_clip else np.ones(1, bool),
        stacked("quality").astype(np.float64),
        stacked("joints_3d").astype(np.float32) + translation[:, None],
        translation,
        stacked("vertices").astype(np.float32) if "vertices" in arrays else None,
        arrays["faces"].astype(np.int64) if "faces" in arrays else None,
        arrays["rotmat"] if is_clip else None,
        arrays["betas"] if is_clip else None,
        texts.get("body", ""),
        texts.get("body_sha256", ""),
    )
