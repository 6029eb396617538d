"""Weights: published SMPLer checkpoints and our own, loaded strictly."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smpler.models.backbones.efficientnet import SCALES, EfficientNetLite
from smpler.models.backbones.hrnet import WIDTHS
from smpler.models.body import (
    H36M_REGRESSOR,
    Body,
    body_from_arrays,
    default_body,
    load_body,
    load_h36m_regressor,
    open_body,
)
from smpler.models.smpler import PRESETS, SMPLer, SMPLerConfig, build_smpler
from smpler.models.weights.files import load_strictly, read_tensors
from smpler.models.weights.published import body_inside, is_published, rename
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.paths import PRETRAINED, display, first_present

RELEASED_FILES = {
    "smpler-blaze": PRETRAINED / "smpler_open_blaze_blocks.safetensors",
    "smpler-blaze-backbone": PRETRAINED / "smpler_open_blaze.safetensors",
    "smpler": PRETRAINED / "smpler_open_w32.safetensors",
    "smpler-lite": PRETRAINED / "smpler_open_lite.safetensors",
}
"""Preset -> our open weights, trained on open data; the best first."""


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
    start: str | None = None
    """What its training started from, when it says so."""


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
        source, content = display(Path(checkpoint)), read_tensors(Path(checkpoint))
    state = content.get("model", content)
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"{source} holds no state dict of tensors, neither bare nor as 'model'.")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if is_published(state):
        body = body_inside(state, source)
        state = rename(state, source)
        return Checkpoint(source, state, _config_from_shapes(state, source), True, body)
    config = content.get("config")
    try:
        config = SMPLerConfig(**config) if config else _config_from_shapes(state, source)
    except TypeError as error:
        raise ValueError(f"{source} has a configuration of another version: {error}.") from error
    sha256 = (content.get("body") or {}).get("sha256") if "model" in content else None
    start = content.get("start") if "model" in content else None
    return Checkpoint(source, state, config, False, body_sha256=sha256, start=start)


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
    load_strictly(model, checkpoint.state, checkpoint.source, may_be_absent=absent)
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
        preset: a name in `smpler.models.smpler.PRESETS`; None takes what the checkpoint is, without
        one
            what the best released weights are.
        checkpoint: a file or state dict, published or ours; None takes the preset's released
            weights, and leaves the initialisation, with a warning, when there are none.
        body: a file, arrays under SMPL's own field names, or a `Body`; None takes the body inside
            the checkpoint, else that of its training, else SMPL from meta_data/, else the open one.
        regressor: a file or a (17, V) array; None takes the body's own.
        device: where to put it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: checkpoint, body and regressor do not fit together.
    """
    if checkpoint is None:
        checkpoint = released_weights(preset)
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    if preset is None and loaded:
        config = loaded.config
    else:
        config = PRESETS[preset or "smpler"]
    chosen = resolve_body(body, regressor, loaded)
    if loaded is None:
        model = build_smpler(config, chosen)
        warnings.warn(
            "No trained weights: the model is at its initialisation and answers with its mean "
            "pose. Give checkpoint=FILE; see pretrained/README.md.",
            stacklevel=3,
        )
    else:
        with WithoutRandomInit():
            model = build_smpler(config, chosen)
        load_weights(model, loaded)
    return model.to(device).eval()


def released_weights(preset: str | None = None) -> Path | None:
    """Return the open weights of a preset, or the best there are; None when they are not there."""
    candidates = [RELEASED_FILES.get(preset)] if preset else RELEASED_FILES.values()
    return first_present(*[path for path in candidates if path])


def resolve_body(
    body: str | Path | Mapping | Body | None,
    regressor: str | Path | np.ndarray | None,
    checkpoint: Checkpoint | None,
) -> Body:
    """Choose the body and its keypoint regressor as `load_model` describes."""
    inside = checkpoint.body if checkpoint else None
    if body is None:
        chosen = inside or _body_of_training(checkpoint) or default_body()
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
    if checkpoint and checkpoint.body_sha256 not in (None, chosen.sha256):
        warnings.warn(
            f"{checkpoint.source} was trained on another body than {chosen.name!r}: its betas mean "
            "other shapes here.",
            stacklevel=4,
        )
    return chosen if regressor is None else chosen.with_h36m_regressor(np.asarray(regressor))


def _body_of_training(checkpoint: Checkpoint | None) -> Body | None:
    """Return the open body when the checkpoint says that it was trained on it."""
    if checkpoint is None or checkpoint.body_sha256 is None:
        return None
    body = open_body()
    return body if body.sha256 == checkpoint.body_sha256 else None


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


def _config_from_shapes(state: Mapping[str, Tensor], source: str) -> SMPLerConfig:
    """Infer the configuration of weights that come without one."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    if "backbone.world_landmarks.weight" in state:
        return SMPLerConfig("blazepose-full", num_blocks=len(blocks))
    if "backbone.stem.conv.weight" in state:
        for variant in SCALES:
            with torch.device("meta"):
                expected = EfficientNetLite(variant).state_dict()
            if all(
                f"backbone.{name}" in state and state[f"backbone.{name}"].shape == value.shape
                for name, value in expected.items()
            ):
                return SMPLerConfig(f"efficientnet-{variant}", num_blocks=len(blocks))
        raise ValueError(f"{source}: its EfficientNet-Lite is none of {', '.join(SCALES)}.")
    finest = state.get("backbone.stage2.0.branches.0.0.conv1.weight")
    width = None if finest is None else len(finest)
    names = {number: name for name, number in WIDTHS.items()}
    if width not in names:
        raise ValueError(f"{source} holds no weights of SMPLer: its HRNet has width {width}.")
    return SMPLerConfig(f"hrnet-{names[width]}", num_blocks=len(blocks))


def _describe(config: SMPLerConfig) -> str:
    return f"SMPLer with {config.backbone} and {config.num_blocks} blocks"
