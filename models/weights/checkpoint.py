"""Weights: published SMPLer checkpoints and our own, loaded strictly."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smpler.models.backbones import BACKBONES
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
from smpler.models.weights.files import check_finite, load_strictly, read_tensors, weights_of
from smpler.models.weights.published import body_inside, is_published, rename
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.paths import META_DATA, PRETRAINED, USER_PRETRAINED, display, first_present

RELEASED_FILES = {
    "smpler-blaze": USER_PRETRAINED / "smpler_open_blaze_blocks.safetensors",
    "smpler-blaze-backbone": PRETRAINED / "smpler_open_blaze.safetensors",
    "smpler": USER_PRETRAINED / "smpler_open_w32.safetensors",
}
"""Preset -> open weights, trained on open data, the best first; one of them ships, the others are
what `scripts/train_open.sh` makes."""
INIT = "init"
"""In place of a checkpoint: leave the model at its initialisation."""
MIN_FIT = 0.9
"""Share of a backbone's tensors by which weights without a configuration are recognised."""


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
    if isinstance(checkpoint, Mapping):
        source, content = "state dict", checkpoint
    else:
        source, content = display(Path(checkpoint)), read_tensors(Path(checkpoint))
    state = weights_of(content, source)
    if is_published(state):
        body = body_inside(state, source)
        state = rename(state, source)
        return Checkpoint(source, state, _config_from_shapes(state, source), True, body)
    is_training = "model" in content
    config = _config_of(content, state, source)
    body = content.get("body") if is_training else None
    sha256 = body.get("sha256") if isinstance(body, Mapping) else None
    start = content.get("start") if is_training else None
    return Checkpoint(source, state, config, False, body_sha256=sha256, start=start)


def _config_of(content: Mapping, state: Mapping[str, Tensor], source: str) -> SMPLerConfig:
    """Return the configuration that a checkpoint names, else that of its tensors' shapes."""
    config = content.get("config")
    if not config:
        return _config_from_shapes(state, source)
    try:
        config = SMPLerConfig(**config)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{source} has a configuration of another version: {error}.") from error
    found = _num_blocks(state)
    if config.num_blocks != found:  # before a model of a million blocks is built
        raise ValueError(
            f"{source} says that it has {config.num_blocks} blocks, but holds {found}; take "
            "another checkpoint."
        )
    return config


def _num_blocks(state: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


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
        preset: a name in `PRESETS`; None takes the checkpoint's own, else that of the best open
            weights.
        checkpoint: a file or state dict, published or ours; None takes the preset's released
            weights; `init` leaves the initialisation, whose answer is the mean pose.
        body: a file, arrays under SMPL's own field names, or a `Body`; None takes the body inside
            the checkpoint, else that of its training, else SMPL from meta_data/, else the open one.
        regressor: a file or a (17, V) array; None takes the body's own.
        device: where to put it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: checkpoint, body and regressor do not fit together, or nothing is released.
    """
    if checkpoint is None:
        checkpoint = released_weights(preset)
        if checkpoint is None:
            raise ValueError(_without_weights(preset))
    loaded = None if _is_init(checkpoint) else read_checkpoint(checkpoint)
    if preset is None and loaded:
        config = loaded.config
    else:
        config = PRESETS[preset or "smpler"]
    chosen = resolve_body(body, regressor, loaded)
    if loaded is None:
        model = build_smpler(config, chosen)
    else:
        with WithoutRandomInit():
            model = build_smpler(config, chosen)
        load_weights(model, loaded)
        try:
            check_finite(loaded.state)
        except ValueError as error:
            raise ValueError(f"{loaded.source} cannot be used: {error}.") from error
    return model.to(device).eval()


def describe_weights(checkpoint: str | Path | Mapping) -> tuple[str, str]:
    """Return what results call the weights, and the hash of their file."""
    if _is_init(checkpoint):
        return "initial parameters", ""
    if isinstance(checkpoint, Mapping):
        return "state dict", ""
    with Path(checkpoint).open("rb") as file:
        return Path(checkpoint).name, hashlib.file_digest(file, "sha256").hexdigest()


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
            f"space differs; see {display(META_DATA / 'README.md')} for where to get SMPL.",
            stacklevel=4,
        )
    if checkpoint and checkpoint.body_sha256 not in (None, chosen.sha256):
        warnings.warn(
            f"{checkpoint.source} was trained on another body than {chosen.name!r}: its betas mean "
            "other shapes here.",
            stacklevel=4,
        )
    return chosen if regressor is None else chosen.with_h36m_regressor(np.asarray(regressor))


def _is_init(checkpoint: str | Path | Mapping) -> bool:
    return not isinstance(checkpoint, Mapping) and str(checkpoint) == INIT


def _without_weights(preset: str | None) -> str:
    """Say which models have trained weights, and how to get one without."""
    trained = [name for name in RELEASED_FILES if released_weights(name)]
    others = f"trained are {', '.join(trained)}" if trained else "none are there"
    return (
        f"There are no open weights of {preset or 'any model'} ({others}). Give checkpoint=FILE, "
        f"see {display(PRETRAINED / 'README.md')}, or checkpoint={INIT!r} for a model at its "
        "initialisation."
    )


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
    """Infer the configuration of weights that come without one: the backbone that fits best."""
    shapes = {
        name.removeprefix("backbone."): value.shape
        for name, value in state.items()
        if name.startswith("backbone.")
    }
    fits = {}
    for backbone, row in BACKBONES.items():
        with torch.device("meta"), WithoutRandomInit():
            expected = row.make().state_dict()
        num_equal = sum(shapes.get(name) == value.shape for name, value in expected.items())
        fits[backbone] = num_equal / max(len(expected), len(shapes))
        if fits[backbone] == 1:
            break
    best = max(fits, key=fits.__getitem__)
    if fits[best] < MIN_FIT:
        raise ValueError(
            f"{source} holds no weights of SMPLer: of its {len(shapes)} tensors of a backbone, "
            f"too few are those of {', '.join(BACKBONES)}."
        )
    return SMPLerConfig(best, num_blocks=_num_blocks(state))


def _describe(config: SMPLerConfig) -> str:
    return f"SMPLer with {config.backbone} and {config.num_blocks} blocks"
