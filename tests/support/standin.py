"""Stand-in assets and weights with which the golden numbers in `tests/golden` were made.

Nothing here is licensed data: body, regressors, mean parameters and weights are drawn from seeded
generators, in the shapes and under the names that the published checkpoints use.
`golden/{backbone,smpler}_*.npz` holds what the published architecture computes on them.
"""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch

from smpler.utils.joints import SMPL_PARENTS

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NUM_VERTICES, NUM_FACES = 6890, 13776
HEADS = ("decpose", "decshape", "deccam", "theta_predictor", "beta_predictor", "cam_predictor")
DAMPED = ("bn2", "bn3", "fuse_layers", "downsample")
IMAGE_SEED = 1001


def body(seed: int = 0) -> dict[str, np.ndarray]:
    """A random body in SMPL's own file layout, float64."""
    rng = np.random.default_rng(seed)
    v_template = rng.uniform([-0.8, -1.1, -0.15], [0.8, 0.7, 0.15], size=(NUM_VERTICES, 3))
    weights = rng.random((NUM_VERTICES, 24)) ** 8
    J_regressor = rng.random((24, NUM_VERTICES)) ** 3000
    kintree_table = np.stack([np.array(SMPL_PARENTS, dtype=np.int64), np.arange(24)])
    kintree_table[0, 0] = 4294967295  # SMPL stores the root's parent as uint32(-1)
    return {
        "v_template": v_template,
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": J_regressor / J_regressor.sum(1, keepdims=True),
        "shapedirs": rng.normal(0, 0.01, (NUM_VERTICES, 3, 10)),
        "posedirs": rng.normal(0, 0.002, (NUM_VERTICES, 3, 207)),
        "f": rng.integers(0, NUM_VERTICES, (NUM_FACES, 3)).astype(np.uint32),
        "kintree_table": kintree_table,
    }


def keypoint_regressor(data_mode: str) -> np.ndarray:
    """(17, 6890) regressor of the Human3.6M joints: one for `h36m`, another for `3dpw`."""
    rng = np.random.default_rng({"h36m": 1, "3dpw": 2}[data_mode])
    regressor = rng.random((17, NUM_VERTICES)) ** 3000
    return regressor / regressor.sum(1, keepdims=True)


def mean_params() -> dict[str, np.ndarray]:
    """Pose (144,) as 24 6D rotations, shape (10,)."""
    rng = np.random.default_rng(3)
    pose = np.tile(np.eye(3)[:, :2].reshape(-1), 24) + rng.normal(0, 0.2, 144)
    return {"pose": pose.astype(np.float32), "shape": rng.normal(0, 0.3, 10).astype(np.float32)}


def published_keys(model: str, hrnet: str) -> dict[str, tuple[list[int], str]]:
    """Name -> (shape, dtype) of every tensor of a published checkpoint."""
    with gzip.open(GOLDEN / "published_keys.json.gz") as file:
        return json.load(file)[f"{model}_{hrnet}"]


def weight(name: str, shape: list[int], salt: int) -> torch.Tensor:
    """The stand-in value of one published float tensor, by its published name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{salt}:{name}".encode()))

    def normal() -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) * 0.5 + 0.75
    if name.endswith("running_mean"):
        return normal() * 0.05
    if len(shape) >= 2:
        value = normal() * int(np.prod(shape[1:])) ** -0.5
        return value * 0.05 if any(head in name for head in HEADS) else value
    if name.endswith("weight"):
        value = 1 + normal() * 0.1
        is_damped = name.startswith("backbone") and any(part in name for part in DAMPED)
        return value * 0.3 if is_damped else value
    value = normal() * 0.02
    if name.endswith("theta_predictor.bias"):
        value[[0, 3]] += 0.1
    return value


def published_state_dict(model: str, hrnet: str, salt: int = 1) -> dict[str, torch.Tensor]:
    """A state dict under the published names, without the body's buffers."""
    mean = mean_params()
    init = {"init_pose": mean["pose"], "init_shape": mean["shape"], "init_cam": np.array([1, 0, 0])}
    state = {}
    for name, (shape, dtype) in published_keys(model, hrnet).items():
        if name.startswith("smpl_handler."):
            continue
        if name.startswith("SMPL_predictor.init_"):
            state[name] = torch.from_numpy(init[name.split(".")[-1]]).float()[None]
        elif dtype == "int64":
            state[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            state[name] = weight(name, shape, salt)
    return state


def published_body(arrays: dict[str, np.ndarray], regressor: np.ndarray) -> dict[str, torch.Tensor]:
    """The tensors under which an official checkpoint carries its body (smplx's buffers)."""
    posedirs = arrays["posedirs"].reshape(-1, arrays["posedirs"].shape[-1]).T
    buffers = {
        "smpl.v_template": arrays["v_template"],
        "smpl.shapedirs": arrays["shapedirs"],
        "smpl.posedirs": posedirs,
        "smpl.J_regressor": arrays["J_regressor"],
        "smpl.lbs_weights": arrays["weights"],
        "smpl.faces_tensor": arrays["f"].astype(np.int64),
        "smpl.parents": np.array(SMPL_PARENTS),
        "smpl.vertex_joint_selector.extra_joints_idxs": np.arange(21),
        "J_regressor_h36m_correct": regressor,
    }
    return {
        f"smpl_handler.{name}": torch.from_numpy(
            np.ascontiguousarray(value if value.dtype.kind == "i" else value.astype(np.float32))
        )
        for name, value in buffers.items()
    }


def images() -> torch.Tensor:
    """The (2, 3, 224, 224) input of the golden numbers, float64, already normalised.

    The seed keeps every projected joint at least 1e-3 pixels away from a pixel border, so that
    rounding cannot move a sampling window.
    """
    generator = torch.Generator().manual_seed(IMAGE_SEED)
    return torch.randn(2, 3, 224, 224, generator=generator).double()
