"""Weights: published SMPLer checkpoints, published HRNet weights and our own, loaded strictly."""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.body import (
    H36M_REGRESSOR,
    Body,
    body_from_arrays,
    check_h36m_regressor,
    default_body,
    load_body,
    load_h36m_regressor,
)
from models.hrnet import WIDTHS, HRNet
from models.smpler import PRESETS, SMPLer, SMPLerConfig, build_smpler
from utils.paths import PRETRAINED, display, require

HRNET_FILES = {
    "w32": PRETRAINED / "hrnet" / "pose_hrnet_w32_256x256.pth",
    "w48": PRETRAINED / "hrnet" / "pose_hrnet_w48_256x192.pth",
}
"""HRNet's published pose weights: W32 trained on MPII, W48 on COCO."""

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


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights says, under our names."""

    source: str
    """The file's name, or `state dict`."""
    state: dict[str, Tensor]
    config: SMPLerConfig
    is_published: bool
    """Whether it came under the published names."""
    body: Body | None = None
    """The body inside, when it carries one; official checkpoints do."""
    body_sha256: str | None = None
    """Identity of the body that it was trained with, when it says so."""


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


def read_checkpoint(checkpoint: str | Path | Mapping) -> Checkpoint:
    """Read a checkpoint: published or ours, a bare state dict or one inside a training dict.

    Args:
        checkpoint: a file, or what it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than SMPLer's weights.
    """
    source, content = "state dict", checkpoint
    if not isinstance(checkpoint, Mapping):
        source, content = display(Path(checkpoint)), _load_tensors(Path(checkpoint))
    state = content.get("model", content)
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"{source} holds no state dict of tensors, neither bare nor as 'model'.")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    is_published = any(name.startswith("SMPL_predictor.") for name in state)
    if is_published:
        body = _body_inside(state, source)
        state = _rename(state, source)
        return Checkpoint(source, state, _config_from_shapes(state, source), True, body)
    config = content.get("config")
    config = SMPLerConfig(**config) if config else _config_from_shapes(state, source)
    sha256 = (content.get("body") or {}).get("sha256") if "model" in content else None
    return Checkpoint(source, state, config, False, body_sha256=sha256)


def load_weights(
    model: SMPLer, checkpoint: Checkpoint, stage_1_may_start: bool = False
) -> tuple[str, ...]:
    """Copy a checkpoint's weights into the model; every tensor on both sides is accounted for.

    Args:
        stage_1_may_start: a checkpoint without blocks may start a model with blocks, as stage 2 of
            the training does; the blocks keep their initialisation.

    Returns:
        The names of the tensors that kept their initialisation.

    Raises:
        ValueError: names or shapes differ; the message lists the first of them.
    """
    absent = ()
    if stage_1_may_start and checkpoint.config == replace(model.config, num_blocks=0):
        new = ("blocks.", "query_embedding.")
        absent = tuple(name for name in model.state_dict() if name.startswith(new))
    elif checkpoint.config != model.config:
        raise ValueError(
            f"{checkpoint.source} holds a {_describe(checkpoint.config)}, but the model is a "
            f"{_describe(model.config)}; choose the model that fits the file."
        )
    _load_strictly(model, checkpoint.state, checkpoint.source, may_be_absent=absent)
    return absent


def load_hrnet(backbone: HRNet, path: str | Path) -> tuple[str, ...]:
    """Load HRNet's published pose weights (Sun et al., CVPR 2019) into the backbone.

    The pose network's last module fuses towards its finest map only: the fusions towards the other
    three are not in the file and keep their initialisation. Its `final_layer` is not used.

    Returns:
        The names of the tensors that the file cannot hold.

    Raises:
        ValueError: anything else is missing or left over, or belongs to another width.
    """
    source = display(Path(path))
    content = _load_tensors(Path(path))
    state = {name.removeprefix("module."): value for name, value in content.items()}
    state = {name: x for name, x in state.items() if not name.startswith("final_layer.")}
    absent = tuple(
        name for name in backbone.state_dict() if re.match(r"stage4\.2\.fuse_layers\.[123]\.", name)
    )
    width = state.get("stage2.0.branches.0.0.conv1.weight")
    if width is not None and len(width) != backbone.channels[0]:
        raise ValueError(
            f"{source} holds HRNet-W{len(width)}, but the backbone is HRNet-W"
            f"{backbone.channels[0]}; --hrnet_type must fit the file."
        )
    _load_strictly(backbone, state, source, may_be_absent=absent)
    return absent


def load_model(
    preset: str | None = None,
    checkpoint: str | Path | Mapping | None = None,
    body: str | Path | Mapping | Body | None = None,
    regressor: str | Path | np.ndarray | None = None,
    device: str | torch.device = "cpu",
) -> SMPLer:
    """Assemble a model for use: configuration, body, keypoint regressor, weights; eval mode.

    Args:
        preset: a name in `models.smpler.PRESETS`; None takes what the checkpoint is, `smpler`
            without one.
        checkpoint: a file or state dict, published or ours; None leaves the initialisation.
        body: a file, arrays under SMPL's own field names, or a `Body`; None takes the body inside
            the checkpoint, else SMPL from meta_data/, else the open body.
        regressor: a file or a (17, V) array; None takes the body's own.
        device: where to put it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: checkpoint, body and regressor do not fit together.
    """
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    if preset is None and loaded:
        config = loaded.config
    else:
        config = PRESETS[preset or "smpler"]
    model = build_smpler(config, resolve_body(body, regressor, loaded))
    if loaded is None:
        warnings.warn(
            "No trained weights: the model is at its initialisation and answers with its mean "
            "pose. Give checkpoint=FILE; see pretrained/README.md.",
            stacklevel=3,
        )
    else:
        load_weights(model, loaded)
    return model.to(device).eval()


def resolve_body(
    body: str | Path | Mapping | Body | None,
    regressor: str | Path | np.ndarray | None,
    checkpoint: Checkpoint | None,
) -> Body:
    """Choose the body and its keypoint regressor as `load_model` describes."""
    inside = checkpoint.body if checkpoint else None
    if body is None:
        chosen = inside or default_body()
    elif isinstance(body, Body):
        chosen = body
    elif isinstance(body, Mapping):
        chosen = body_from_arrays(body, name="given")
    else:
        chosen = load_body(body)
    if regressor is None:
        regressor = _regressor_beside(chosen, inside)
    elif not isinstance(regressor, np.ndarray | Tensor):
        regressor = load_h36m_regressor(regressor)
    if checkpoint and checkpoint.is_published and chosen.name == "open":
        warnings.warn(
            f"{checkpoint.source} was trained on SMPL but poses the open body here, whose shape "
            "space differs; see meta_data/README.md for where to get SMPL.",
            stacklevel=4,
        )
    return chosen if regressor is None else chosen.with_h36m_regressor(np.asarray(regressor))


def _regressor_beside(body: Body, inside: Body | None) -> np.ndarray | None:
    """Find the keypoint regressor of a body that came without one."""
    if body.h36m_regressor is not None:
        return None
    if inside is not None and inside.h36m_regressor is not None:
        return inside.h36m_regressor
    if H36M_REGRESSOR.is_file():
        return load_h36m_regressor(H36M_REGRESSOR)
    warnings.warn(
        f"There is no keypoint regressor for the body {body.name!r}, so no keypoints: give "
        f"regressor=FILE or put it at {display(H36M_REGRESSOR)}.",
        stacklevel=5,
    )
    return None


def _load_tensors(path: Path) -> Mapping:
    """Read a torch file that may hold tensors and plain values only."""
    try:
        content = torch.load(require(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{display(path)} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{display(path)} holds a {type(content).__name__}, not a state dict.")
    return content


def _rename(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
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
            f"{source} has {len(unknown)} tensors that SMPLer does not: {_first(unknown)}."
        )
    return renamed


def _body_inside(state: Mapping[str, Tensor], source: str) -> Body | None:
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


def _config_from_shapes(state: Mapping[str, Tensor], source: str) -> SMPLerConfig:
    """Infer the configuration of weights that come without one."""
    finest = state.get("backbone.stage2.0.branches.0.0.conv1.weight")
    width = None if finest is None else len(finest)
    names = {number: name for name, number in WIDTHS.items()}
    if width not in names:
        raise ValueError(f"{source} holds no weights of SMPLer: its HRNet has width {width}.")
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    return SMPLerConfig(hrnet=names[width], num_blocks=len(blocks))


def _load_strictly(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    may_be_absent: tuple[str, ...] = (),
) -> None:
    expected = module.state_dict()
    missing = [name for name in expected if name not in state and name not in may_be_absent]
    unexpected = [name for name in state if name not in expected]
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_first(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", unexpected),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{source} does not fit the model; tensors {'; '.join(problems)}.")
    module.load_state_dict(state, strict=not may_be_absent)


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _describe(config: SMPLerConfig) -> str:
    return f"SMPLer with hrnet {config.hrnet} and {config.num_blocks} blocks"
