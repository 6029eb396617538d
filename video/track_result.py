"""The results of a run for one person of a clip, as npz and BVH; a clip's people as one glb.

`TrackResult` is the schema: what `PersonResult` says of a photo, stacked along the frames.
docs/output.md lists the keys for users; `tests/video/test_track_result.py` keeps the two equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from smpler.utils.drawing.visualize import Color
from smpler.utils.files.arrays import read_npz
from smpler.utils.files.bvh import bvh
from smpler.utils.files.meshes import PhotoCamera
from smpler.utils.files.skinned import SkinnedPart, skinned_glb
from smpler.utils.files.whole import replacing_set, write_bytes_whole, write_whole
from smpler.utils.geometry import rotmat_to_axis_angle
from smpler.utils.rig import Motion, Rig, skinning_error

SCHEMA = "smpler-track/1"
MESH_FIELDS = ("vertices", "faces")
"""They are in the npz only when meshes were asked for."""
NUM_AMASS_JOINTS, NUM_BODY_JOINTS = 52, 22
"""SMPL-H's joints, of which AMASS's `poses` are; its first 22 are SMPL's."""
CAMERA_TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the camera's frame (x right, y down, z away) to AMASS's: (x, z, -y)."""


@dataclass(frozen=True)
class TrackResult:
    """One person through a clip, T frames.

    3D is in the camera's frame: metres, x right, y down, z away. 2D is in the frames' pixels: x
    right, y down, (0, 0) is the top-left corner.
    """

    schema: str
    """Name and version of this list of keys."""
    version: str
    """Version of the program."""
    video: str
    """Name of the clip's file."""
    image_size: Int[np.ndarray, "2"]
    """Width and height of the frames, pixels, upright."""
    fps: float
    """Frames a second of the frames used."""
    track: int
    """Number of the person in the clip, from 1."""
    frames: Int[np.ndarray, "t"]
    """Numbers of the frames in the clip, from 0; in even steps unless the clip's own are not."""
    times: Float[np.ndarray, "t"]
    """Seconds from the clip's start, in even steps."""
    is_seen: Bool[np.ndarray, "t"]
    """False where nobody was seen, and the gap is bridged."""
    box: Float[np.ndarray, "t 4"]
    """x, y, width, height of the person, pixels."""
    box_score: Float[np.ndarray, "t"]
    """The detector's confidence in [0, 1]."""
    quality: Float[np.ndarray, "t"]
    """How well the body is likely to be right, in [0, 1]."""
    fit: tuple[str, ...]
    """Of each frame, see `PersonResult.fit`."""
    fit_residual: Float[np.ndarray, "t"]
    """See `PersonResult.fit_residual`, pixels; NaN where there is none."""
    crop: Int[np.ndarray, "t 4"]
    """x, y, width, height of the square that the model saw, pixels."""
    body: str
    """Which body: `open`, `smpl`, `checkpoint` or the name of a file."""
    body_sha256: str
    """Hash of the body's arrays."""
    weights: str
    """The file of weights, or `initial parameters`."""
    weights_sha256: str
    """Hash of that file; empty without one."""
    pose: Float[np.ndarray, "t 72"]
    """SMPL pose: 24 axis-angle rotations, radians; the first is the global one."""
    rotmat: Float[np.ndarray, "t 24 3 3"]
    """The same as rotation matrices."""
    betas: Float[np.ndarray, "10"]
    """SMPL shape, standard deviations; one for the whole clip."""
    cam: Float[np.ndarray, "t 3"]
    """Crop camera: scale s, tx, ty [m]; crop coordinate = s * (x + tx), [-1, 1] edge to edge."""
    focal_length: float
    """Of the full-image camera, pixels."""
    focal_length_source: str
    """See `PersonResult.focal_length_source`."""
    principal_point: Float[np.ndarray, "2"]
    """Of the full-image camera: the frames' middle, pixels."""
    translation: Float[np.ndarray, "t 3"]
    """Added to 3D points to place them before the full-image camera, metres."""
    joints_3d: Float[np.ndarray, "t 24 3"]
    """SMPL's joints, metres; `joints_3d[:, 0]` is the root, the same in every frame."""
    joints_2d: Float[np.ndarray, "t 24 2"]
    """Their places in the frame by the full-image camera, pixels."""
    joints_confidence: Float[np.ndarray, "t 24"]
    """How sure the landmark network is to see each, in [0, 1]."""
    joints_std: Float[np.ndarray, "t 24"] | None
    """See `PersonResult.joints_std`, metres; NaN where there is none."""
    joint_names: tuple[str, ...]
    """Names of the 24 joints."""
    keypoints_3d: Float[np.ndarray, "t 14 3"] | None
    """The 14 evaluated keypoints, metres; absent when the body has no keypoint regressor."""
    keypoints_2d: Float[np.ndarray, "t 14 2"] | None
    """Their places in the frame by the full-image camera, pixels; absent likewise."""
    keypoints_confidence: Float[np.ndarray, "t 14"]
    """As `joints_confidence`."""
    keypoint_names: tuple[str, ...]
    """Names of the 14 keypoints."""
    vertices: Float[np.ndarray, "t v 3"] | None
    """The posed meshes, metres; None unless meshes are asked for."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles, counter-clockwise seen from outside; written with `vertices` only."""

    def to_dict(self) -> dict:
        """Return the fields that have a value, by name; `faces` only with `vertices`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        left_out = MESH_FIELDS if self.vertices is None else ()
        return {k: v for k, v in values.items() if v is not None and k not in left_out}

    def amass(self) -> dict:
        """Return what AMASS's files hold (Mahmood et al., ICCV 2019), by their names.

        SMPL's formula in AMASS's world, whose z is up: with the rotation R of the first joint and
        its place J at rest, R (v - J) + J + `trans` is where `translation` puts the vertex v.
        `betas` are the field's. `surface_model_type` is `open` for the open body, which is not
        SMPL: with SMPL's mesh these poses look alike, these betas mean nothing.
        """
        root = self.joints_3d[:, 0].astype(np.float64)
        poses = np.zeros((len(self.frames), NUM_AMASS_JOINTS, 3))
        poses[:, :NUM_BODY_JOINTS] = rotmat_to_axis_angle(self.rotmat[:, :NUM_BODY_JOINTS])
        poses[:, 0] = rotmat_to_axis_angle(CAMERA_TO_Z_UP @ self.rotmat[:, 0])
        return {
            "poses": poses.reshape(len(poses), -1),
            "trans": (root + self.translation) @ CAMERA_TO_Z_UP.T - root,
            "gender": "neutral",
            "mocap_framerate": float(self.fps),
            "surface_model_type": "open" if self.body == "open" else "smpl",
        }

    def motion(self) -> Motion:
        """Return poses and places before the camera, y up."""
        return Motion.of(self.rotmat, self.joints_3d[:, 0] + self.translation)

    def save(self, folder: str | Path, stem: str, rig: Rig) -> None:
        """Write STEM_trackN.npz, the numbers, and STEM_trackN.bvh, the skeleton's motion.

        They appear together when both are written.

        Args:
            folder: is made when it is not there.
            stem: of the files' names.
            rig: of the body in this shape, see `Body.rig`.
        """
        start = Path(folder) / f"{stem}_track{self.track}"
        start.parent.mkdir(parents=True, exist_ok=True)
        arrays = {key: np.asarray(value) for key, value in (self.to_dict() | self.amass()).items()}
        with replacing_set(start.with_name(f"{start.name}.npz")) as part:
            write_whole(
                part / f"{start.name}.npz",
                lambda file: np.savez_compressed(file, allow_pickle=False, **arrays),
            )
            text = bvh(rig, self.motion(), self.fps)
            write_bytes_whole(part / f"{start.name}.bvh", text.encode())


def save_tracks(
    folder: Path,
    stem: str,
    tracks: Sequence[TrackResult],
    rigs: Sequence[Rig],
    colors: Sequence[Color],
) -> list[Path]:
    """Write all files of a clip but its video; they appear together, STEM.glb last.

    Those of an earlier run of the same clip go: its video, and people who are not found any more.

    Args:
        folder: must be there.
        stem: of the files' names.
        tracks: of one clip, at least one.
        rigs: of each person's body in its shape, with detail, see `Body.rig`.
        colors: of each person.

    Returns:
        The files.

    Raises:
        OSError: a file could not be written; older ones stay as they are.
    """
    glb = folder / f"{stem}.glb"
    starts = [folder / f"{stem}_track{track.track}" for track in tracks]
    starts += earlier_tracks(folder, stem, tracks[0].video, starts)
    older = [folder / f"{stem}_out.mp4"]
    # the npz, by which earlier ones are known, goes last
    older += [x.with_name(f"{x.name}.{end}") for x in reversed(starts) for end in ("bvh", "npz")]
    with replacing_set(glb, older) as part:
        written = []
        for track, rig in zip(tracks, rigs, strict=True):
            track.save(part, stem, rig)
            written += [f"{stem}_track{track.track}.{end}" for end in ("npz", "bvh")]
        save_clip_glb(part / glb.name, tracks, rigs, colors)
    return [*(folder / name for name in written), glb]


def earlier_tracks(folder: Path, stem: str, video: str, known: Sequence[Path]) -> list[Path]:
    """Return the beginnings of the names of a clip's other people, whom an earlier run wrote."""
    found, number = [], 1
    while (start := folder / f"{stem}_track{number}").with_name(f"{start.name}.npz").is_file():
        number += 1
        try:
            said = read_npz(start.with_name(f"{start.name}.npz"), ("schema", "video"))
        except (OSError, ValueError):
            continue
        if start not in known and (str(said.get("schema")), str(said.get("video"))) == (
            SCHEMA,
            video,
        ):
            found.append(start)
    return found


def save_clip_glb(
    path: str | Path,
    tracks: Sequence[TrackResult],
    rigs: Sequence[Rig],
    colors: Sequence[Color],
) -> None:
    """Write the people of a clip as one .glb: metres, y up, moving where the clip shows them.

    The nodes are `person_1` and so on, by the tracks' numbers, and `photo_camera` at the origin.
    The skins leave out the pose correctives: each person's node says in its `extras` how far that
    moves the vertices.

    Args:
        path: of the file; its folder must be there.
        tracks: of one clip, at least one.
        rigs: of each person's body in its shape, with detail, see `Body.rig`.
        colors: of each person.
    """
    parts = []
    for track, rig, color in zip(tracks, rigs, colors, strict=True):
        mean, largest = skinning_error(rig, track.rotmat)
        left_out = "pose correctives"
        if rig.dropped_weights is not None:
            left_out += ", skinning weights beyond four joints a vertex"
        part = SkinnedPart(
            name=f"person_{track.track}",
            rig=rig,
            vertices=rig.vertices,
            normals=rig.normals,
            motion=track.motion(),
            color=color,
            times=track.times,
            duration=1 / track.fps,
            extras={
                "left_out": left_out,
                "mean_distance_mm": round(1000 * mean, 3),
                "largest_distance_mm": round(1000 * largest, 3),
            },
        )
        parts.append(part)
    width, height = tracks[0].image_size.tolist()
    camera = PhotoCamera(tracks[0].focal_length, (width, height))
    write_bytes_whole(Path(path), skinned_glb(parts, camera))
