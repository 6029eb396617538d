"""Which body: the open body, SMPL as its files hold it, or the body inside a checkpoint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from smpler.models.weights.body_checks import (
    SMPL_FIELDS,
    check_kinematic_tree,
    check_person,
    check_shapes,
    to_float32,
)
from smpler.utils.files.arrays import read_npy, read_npz
from smpler.utils.geometry import axis_angle_to_rotmat, rotmat_to_rot6d
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES, NUM_BETAS, SMPL_NAMES, SMPL_PARENTS
from smpler.utils.paths import META_DATA, USER_META_DATA, display, first_present, require
from smpler.utils.rig import Detail, Rig, four_largest
from smpler.utils.safe_pickle import read_array_pickle, to_array

OPEN_BODY = META_DATA / "open_body.npz"
H36M_REGRESSOR = USER_META_DATA / "J_regressor_h36m_correct.npy"
MEAN_PARAMS = USER_META_DATA / "smpl_mean_params.npz"
SMPL_FILES = (
    USER_META_DATA / "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
    USER_META_DATA / "SMPL_NEUTRAL.pkl",
    USER_META_DATA / "SMPL_NEUTRAL.npz",
)

GENDERED_FILES = {
    "male": (
        USER_META_DATA / "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
        USER_META_DATA / "SMPL_MALE.pkl",
        USER_META_DATA / "SMPL_MALE.npz",
    ),
    "female": (
        USER_META_DATA / "basicModel_f_lbs_10_207_0_v1.0.0.pkl",
        USER_META_DATA / "SMPL_FEMALE.pkl",
        USER_META_DATA / "SMPL_FEMALE.npz",
    ),
}

PACKED_FIELDS = (
    "v_template", "shapedirs", "posedirs", "lbs_index", "lbs_weight", "faces", "mean_pose",
    *(
        f"{name}_regressor_{part}"
        for name in ("J", "h36m", "annotation")
        for part in ("row", "col", "value")
    ),
)  # fmt: skip
"""Arrays of the file that `scripts.build.open_body` writes."""


@dataclass(frozen=True, eq=False)
class Body:
    """A body model of SMPL's kind: 24 joints, 10 betas, any number V of vertices.

    Arrays are float32, the precision in which published models hold their body. Rest frame:
    metres, x to the body's left, y up, z forward.
    """

    name: str
    """What results call it: `open`, `smpl`, `checkpoint` or the name of a file."""
    v_template: Float[np.ndarray, "v 3"]
    shapedirs: Float[np.ndarray, "v 3 10"]
    posedirs: Float[np.ndarray, "v 3 207"]
    J_regressor: Float[np.ndarray, "24 v"]
    lbs_weights: Float[np.ndarray, "v 24"]
    faces: Int[np.ndarray, "f 3"]
    h36m_regressor: Float[np.ndarray, "17 v"] | None = None
    """Rows that give the 17 Human3.6M joints from posed vertices."""
    annotation_regressor: Float[np.ndarray, "24 v"] | None = None
    """Rows that give the 24 annotated joints of METRO's labels; the open body has it."""
    mean_pose: Float[np.ndarray, "24 3"] | None = None
    """Axis-angle of a person standing upright, facing the camera, in the camera's frame."""

    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return len(self.v_template)

    @cached_property
    def sha256(self) -> str:
        """Identity of the body: a hash of the arrays that pose it, whatever file they came from."""
        digest = hashlib.sha256()
        for field in ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights"):
            digest.update(np.ascontiguousarray(getattr(self, field), dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(self.faces, dtype="<i4").tobytes())
        return digest.hexdigest()

    @property
    def regressor_sha256(self) -> str | None:
        """Identity of the keypoint regressor; None without one."""
        if self.h36m_regressor is None:
            return None
        values = np.ascontiguousarray(self.h36m_regressor, dtype="<f4")
        return hashlib.sha256(values.tobytes()).hexdigest()

    @cached_property
    def four_weights(self) -> tuple[UInt8[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
        """The joints that move each vertex most, and how much, see `four_largest`."""
        return four_largest(self.lbs_weights)

    def rig(self, betas: Float[np.ndarray, "10"], detail: bool = True) -> Rig:
        """Return the body of a shape at rest, with what bends it in files of animation.

        Args:
            betas: the shape.
            detail: whether the rig knows what it leaves out of the body, to measure it.
        """
        vertices = self.v_template + self.shapedirs @ betas.astype(np.float32)
        left_out = Detail(self.posedirs, self.lbs_weights) if detail else None
        joints = (self.J_regressor @ vertices.astype(np.float64)).astype(np.float32)
        return Rig(
            SMPL_NAMES, SMPL_PARENTS, joints, vertices, self.faces, *self.four_weights, left_out
        )

    def with_h36m_regressor(self, regressor: np.ndarray) -> "Body":
        """Return this body with another (17, V) regressor of the Human3.6M joints."""
        return replace(self, h36m_regressor=check_h36m_regressor(regressor, self.num_vertices))


def body_from_arrays(arrays: Mapping, name: str) -> Body:
    """Make a body from arrays under SMPL's own field names.

    Args:
        arrays: v_template, shapedirs (more than 10 betas are cut), posedirs, J_regressor (dense
            or scipy.sparse), weights, f, kintree_table (optional).
        name: what to call the body.

    Raises:
        ValueError: a field is missing, of the wrong shape, not finite in float32, or not of SMPL's
            kinematic tree.
    """
    missing = [field for field in SMPL_FIELDS if field not in arrays]
    if missing:
        raise ValueError(
            f"The body {name!r} has no field {missing[0]!r}; a SMPL file holds "
            f"{', '.join(SMPL_FIELDS)}."
        )
    try:
        dense = {field: to_array(arrays[field]) for field in SMPL_FIELDS}
    except ValueError as error:
        raise ValueError(f"The body {name!r} holds other than arrays: {error}") from error
    check_shapes(dense, name)
    if "kintree_table" in arrays:
        check_kinematic_tree(to_array(arrays["kintree_table"]), name)
    floats = {
        field: to_float32(dense[field], f"The field {field!r} of the body {name!r}")
        for field in SMPL_FIELDS
        if field != "f"
    }
    return Body(
        name=name,
        v_template=floats["v_template"],
        shapedirs=np.ascontiguousarray(floats["shapedirs"][..., :NUM_BETAS]),
        posedirs=floats["posedirs"],
        J_regressor=floats["J_regressor"],
        lbs_weights=floats["weights"],
        faces=dense["f"].astype(np.int64),
    )


def load_body(path: str | Path) -> Body:
    """Read a body from SMPL's .pkl (chumpy is not needed) or .npz, or from an open body's .npz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a body, a pickle that holds more than arrays, or not in metres.
    """
    path = require(Path(path))
    if path.suffix == ".pkl":
        body = body_from_arrays(_read_smpl_pickle(path), name=path.name)
    else:
        fields = (*SMPL_FIELDS, "kintree_table", *PACKED_FIELDS)
        arrays = read_npz(path, fields, "is no npz or pkl file of a body")
        if "lbs_index" in arrays:
            body = _unpack_open_body(arrays, path)
        else:
            body = body_from_arrays(arrays, name=path.name)
    check_person(body.v_template, body.shapedirs, body.posedirs, body.lbs_weights, path.name)
    return body


def open_body() -> Body:
    """Return the body that ships with the project (CC0), built by `scripts.build.open_body`."""
    return load_body(OPEN_BODY)


def default_body() -> Body:
    """Return the licensed SMPL body when its file is in meta_data/, else the open body."""
    path = first_present(*SMPL_FILES)
    if path is None:
        return open_body()
    body = replace(load_body(path), name="smpl")
    if H36M_REGRESSOR.is_file():
        body = body.with_h36m_regressor(load_h36m_regressor(H36M_REGRESSOR))
    return body


def gendered_bodies(h36m_regressor: np.ndarray) -> tuple[Body, Body]:
    """Return SMPL's male and female bodies, with the keypoint regressor of the neutral one.

    Raises:
        FileNotFoundError: meta_data/ does not hold them.
    """
    male, female = (
        replace(load_body(first_present(*paths) or paths[1]), name=gender)
        for gender, paths in GENDERED_FILES.items()
    )
    return male.with_h36m_regressor(h36m_regressor), female.with_h36m_regressor(h36m_regressor)


def mean_parameters(body: Body) -> tuple[Float[np.ndarray, "144"], Float[np.ndarray, "10"]]:
    """Return the pose (24 6D rotations, flat) and betas from which the initial regressor starts.

    SMPL's own mean (`smpl_mean_params.npz`, Kanazawa et al., CVPR 2018) when its file is there and
    the body is not the open one; else the body's, else the open body's standing pose.
    """
    if body.name != "open" and MEAN_PARAMS.is_file():
        mean = read_npz(MEAN_PARAMS)
        pose, shape = (
            to_float32(mean.get(key, np.array("absent")), f"{display(MEAN_PARAMS)}: {key!r}")
            for key in ("pose", "shape")
        )
        if pose.shape != (6 * len(SMPL_NAMES),) or shape.shape != (NUM_BETAS,):
            raise ValueError(
                f"{display(MEAN_PARAMS)} holds {pose.shape} and {shape.shape} numbers instead of "
                "144 and 10; get it again."
            )
        return pose, shape
    mean_pose = open_body().mean_pose if body.mean_pose is None else body.mean_pose
    rotmat = axis_angle_to_rotmat(torch.from_numpy(mean_pose).double())
    return rotmat_to_rot6d(rotmat).flatten().float().numpy(), np.zeros(NUM_BETAS, np.float32)


def load_h36m_regressor(path: str | Path) -> np.ndarray:
    """Read a regressor of the 17 Human3.6M joints from an .npy file; not yet checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    return read_npy(Path(path))


def check_h36m_regressor(regressor: np.ndarray, num_vertices: int) -> Float[np.ndarray, "17 v"]:
    """Return the regressor in float32 when it fits a body of so many vertices.

    Raises:
        ValueError: it has other than 17 rows, belongs to another body, or is not finite.
    """
    regressor = np.asarray(regressor)
    if regressor.shape != (len(H36M_NAMES), num_vertices):
        raise ValueError(
            f"The keypoint regressor has shape {regressor.shape}, but a body of {num_vertices} "
            f"vertices needs ({len(H36M_NAMES)}, {num_vertices}); give the regressor of this body."
        )
    return to_float32(regressor, "The keypoint regressor")


def _unpack_open_body(arrays: dict[str, np.ndarray], path: Path) -> Body:
    """Expand the packed arrays of `scripts.build.open_body`: sparse regressors, four weights."""
    missing = [field for field in PACKED_FIELDS if field not in arrays]
    if missing:
        raise ValueError(f"{display(path)} has no {missing[0]!r}; build or get it again.")
    try:
        regressors = {
            name: _dense_regressor(arrays, f"{name}_regressor", len(joints))
            for name, joints in (
                ("J", SMPL_NAMES), ("h36m", H36M_NAMES), ("annotation", ANNOTATION_NAMES)
            )
        }  # fmt: skip
        weights = np.zeros((len(arrays["v_template"]), len(SMPL_NAMES)), np.float32)
        index, value = arrays["lbs_index"].astype(np.int64), arrays["lbs_weight"].astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # refused below
            share = value / value.sum(axis=1, keepdims=True)
        np.put_along_axis(weights, index, share, axis=1)
        mean_pose = to_float32(arrays["mean_pose"], "'mean_pose'").reshape(len(SMPL_NAMES), 3)
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(
            f"{display(path)} holds arrays that do not fit together: {error}; get it again."
        ) from error
    expanded = {"J_regressor": regressors["J"], "weights": weights, "f": arrays["faces"]}
    body = body_from_arrays(arrays | expanded, name="open")
    body = replace(body, annotation_regressor=regressors["annotation"], mean_pose=mean_pose)
    return body.with_h36m_regressor(regressors["h36m"])


def _dense_regressor(arrays: dict[str, np.ndarray], name: str, num_rows: int) -> np.ndarray:
    row, col, value = (arrays[f"{name}_{part}"] for part in ("row", "col", "value"))
    dense = np.zeros((num_rows, len(arrays["v_template"])), np.float32)
    np.add.at(dense, (row, col), to_float32(value, repr(name)))
    return dense


def _read_smpl_pickle(path: Path) -> dict:
    """Read SMPL's .pkl, made with chumpy or not; nothing in the file is executed."""
    try:
        return read_array_pickle(path, (*SMPL_FIELDS, "kintree_table"))
    except ValueError as error:
        raise ValueError(
            f"{error} Only SMPL's own pickles of arrays are accepted; see "
            f"{display(META_DATA / 'README.md')}."
        ) from error
