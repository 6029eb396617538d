"""The published checkpoints: their tensors' names, and the body that they carry inside."""

import re
from collections.abc import Mapping

from torch import Tensor

from smpler.models.body import Body, body_from_arrays, check_h36m_regressor
from smpler.models.weights.files import first

# The published names -> ours, applied in this order; each pattern matches at the start.
_BLOCK = r"transformer\.(\d+)\."
_UNIT = _BLOCK + r"trans_block\.trans_units\.(\d+)\."
_PUBLISHED_NAMES = (
    (r"SMPL_predictor\.init_pose$", r"regressor.mean_rot6d"),
    (r"SMPL_predictor\.init_shape$", r"regressor.mean_betas"),
    (r"SMPL_predictor\.init_cam$", r"regressor.mean_cam"),
    (r"SMPL_predictor\.decpose\.", r"regressor.rot6d_head."),
    (r"SMPL_predictor\.decshape\.", r"regressor.betas_head."),
    (r"SMPL_predictor\.deccam\.", r"regressor.cam_head."),
    (r"SMPL_predictor\.(fc[12])\.", r"regressor.\1."),
    (r"init_query_layer_theta\.", r"query_embedding.rotmat."),
    (r"init_query_layer_beta\.", r"query_embedding.betas."),
    (r"init_query_layer_cam\.", r"query_embedding.cam."),
    (r"global_feat_projection\.", r"query_embedding.feature."),
    (_BLOCK + r"raw_feat_projection_layer\.(\d+)\.0\.", r"blocks.\1.map_projections.\2."),
    (_BLOCK + r"raw_feat_projection_layer\.(\d+)\.1\.", r"blocks.\1.map_norms.\2."),
    (_BLOCK + r"joint_feat_projection_layer\.0\.", r"blocks.\1.joint_feature."),
    (_BLOCK + r"trans_block\.feat_position_embedding$", r"blocks.\1.map_position"),
    (_BLOCK + r"trans_block\.early_embedding\.", r"blocks.\1.embedding."),
    (_BLOCK + r"trans_block\.position_embeddings\.", r"blocks.\1.query_position."),
    (_BLOCK + r"trans_block\.head\.", r"blocks.\1.out."),
    (_BLOCK + r"trans_block\.residual\.", r"blocks.\1.residual."),
    (
        _UNIT + r"global_unit\.trans_layer_list\.(\d+)\.transformer_layer\.",
        r"blocks.\1.units.\2.multi_scale.layers.\3.",
    ),
    (
        _UNIT + r"local_unit\.relative_position_encoding_table\.0$",
        r"blocks.\1.units.\2.joint_aware.bias_table",
    ),
    (
        _UNIT + r"local_unit\.trans_layer_list\.0\.transformer_layer\.",
        r"blocks.\1.units.\2.joint_aware.layer.",
    ),
    (_UNIT + r"self_trans_layer\.self_trans_layer\.", r"blocks.\1.units.\2.self_attention."),
    (_BLOCK + r"theta_predictor\.", r"blocks.\1.rot6d_head."),
    (_BLOCK + r"beta_predictor\.", r"blocks.\1.betas_head."),
    (_BLOCK + r"cam_predictor\.", r"blocks.\1.cam_head."),
)
_PUBLISHED_LAYER_PARTS = ((".LayerNorm_attn.", ".norm."), (".linear_attn.", ".out."))
_PUBLISHED_BODY = "smpl_handler."
_PUBLISHED_BODY_FIELDS = {
    "v_template": "v_template",
    "shapedirs": "shapedirs",
    "J_regressor": "J_regressor",
    "weights": "lbs_weights",
    "f": "faces_tensor",
}


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Tell published names from ours."""
    return any(name.startswith("SMPL_predictor.") for name in state)


def our_name(published: str) -> str | None:
    """Translate one published tensor name; None when it is not one."""
    if published.startswith("backbone."):
        return published
    for pattern, replacement in _PUBLISHED_NAMES:
        name, matches = re.subn("^" + pattern, replacement, published)
        if matches:
            for part, ours in _PUBLISHED_LAYER_PARTS:
                name = name.replace(part, ours)
            return name
    return None


def rename(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Translate a published state dict; the body's own tensors are left out."""
    renamed, unknown = {}, []
    for name, value in state.items():
        if name.startswith(_PUBLISHED_BODY):
            continue
        ours = our_name(name)
        if ours is None:
            unknown.append(name)
        else:
            renamed[ours] = value
    if unknown:
        raise ValueError(
            f"{source} has {len(unknown)} tensors that SMPLer does not: {first(unknown)}."
        )
    return renamed


def body_inside(state: Mapping[str, Tensor], source: str) -> Body | None:
    """Return the body that an official checkpoint carries in smplx's buffers, if it does."""
    prefix = _PUBLISHED_BODY + "smpl."
    if prefix + "v_template" not in state:
        return None
    arrays = {
        field: state[prefix + name].numpy()
        for field, name in _PUBLISHED_BODY_FIELDS.items()
        if prefix + name in state
    }
    if prefix + "posedirs" in state:
        posedirs = state[prefix + "posedirs"].numpy()  # (207, 3V)
        arrays["posedirs"] = posedirs.T.reshape(-1, 3, len(posedirs))
    body = body_from_arrays(arrays, name="checkpoint")
    regressor = state.get(_PUBLISHED_BODY + "J_regressor_h36m_correct")
    if regressor is None:
        return body
    return body.with_h36m_regressor(check_h36m_regressor(regressor.numpy(), body.num_vertices))
