"""smplx on a body of ours, and its stored outputs: python -m tests.support.smplx_oracle.

smplx's code is licensed for research only, so that default tests compare with the stored numbers.
"""

import numpy as np
import smplx
import torch
from smplx.utils import Struct

from smpler.models.body import Body, body_from_arrays, open_body
from smpler.utils.joints import SMPL_PARENTS
from tests.support import standin


def smplx_outputs(
    body: Body, pose: torch.Tensor, betas: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices and the 24 joints, float64."""
    kintree_table = np.stack([np.array(SMPL_PARENTS), np.arange(24)])
    arrays = Struct(
        v_template=body.v_template.astype(np.float64),
        shapedirs=body.shapedirs.astype(np.float64),
        posedirs=body.posedirs.astype(np.float64),
        J_regressor=body.J_regressor.astype(np.float64),
        weights=body.lbs_weights.astype(np.float64),
        kintree_table=kintree_table,
        f=body.faces,
    )
    names = smplx.vertex_ids.vertex_ids["smplh"]
    model = smplx.SMPL(
        "", data_struct=arrays, dtype=torch.float64, vertex_ids={name: 0 for name in names}
    )
    with torch.no_grad():
        out = model(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas)
    return out.vertices, out.joints[:, :24]


def main() -> None:
    """Write tests/golden/smplx.npz."""
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.4, (3, 72)), rng.normal(0, 1, (3, 10))
    pose[0] = 0
    golden = {"pose": pose, "betas": betas}
    for body in (body_from_arrays(standin.body(), name="stand-in"), open_body()):
        vertices, joints = smplx_outputs(body, torch.from_numpy(pose), torch.from_numpy(betas))
        golden[f"{body.name}.vertices[::50]"] = vertices[:, ::50].numpy()
        golden[f"{body.name}.joints"] = joints.numpy()
    np.savez_compressed(standin.GOLDEN / "smplx.npz", **golden)


if __name__ == "__main__":
    main()
