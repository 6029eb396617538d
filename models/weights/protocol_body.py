"""The body and the keypoint regressor that a data mode trains and measures with."""

import logging
import re
from pathlib import Path

from smpler.models.body import Body, default_body, load_h36m_regressor, open_body
from smpler.models.weights.checkpoint import Checkpoint
from smpler.utils.paths import USER_META_DATA, display

log = logging.getLogger(__name__)


def protocol_body(mode: str, regressor: str | None, checkpoint: Checkpoint | None) -> Body:
    """Choose the body, with the keypoint regressor of the data mode.

    The body is SMPL from meta_data/, else the one inside an official checkpoint, else the open one,
    whose keypoints are its own. SMPL's keypoints come from the data mode's file. Without that file
    the regressor inside an official checkpoint serves, when the checkpoint is of this data mode.

    Args:
        mode: `h36m` or `3dpw`; `open` is not about SMPL.
        regressor: file of the regressor in meta_data/; None takes the open body.
        checkpoint: what is evaluated or trained further.

    Raises:
        FileNotFoundError: SMPL has no regressor for this data mode.
    """
    if regressor is None:
        return open_body()
    inside = checkpoint.body if checkpoint else None
    body = default_body()
    if body.name == "open" and inside:
        body = inside
    if body.name == "open":
        log.info(
            "Body: the open body and its own keypoints (no SMPL in meta_data/); results say "
            "body=open and cannot be compared with published ones."
        )
        return body
    path = USER_META_DATA / regressor
    if path.is_file():
        return body.with_h36m_regressor(load_h36m_regressor(path))
    other = ""
    if checkpoint and inside and inside.h36m_regressor is not None:
        if is_of_mode(checkpoint.source, mode):
            log.info("%s is missing; the regressor inside %s serves.", path.name, checkpoint.source)
            return body.with_h36m_regressor(inside.h36m_regressor)
        other = f" The regressor inside {checkpoint.source} is not known to be {mode}'s."
    raise FileNotFoundError(
        f"{display(path)} is missing, which data mode {mode} measures with; "
        f"meta_data/README.md says where to get it.{other}"
    )


def is_of_mode(source: str, mode: str) -> bool:
    """Tell from its name, such as SMPLer_3dpw.pt, whether a checkpoint is of a data mode."""
    return set(re.findall("h36m|3dpw", Path(source).name.lower())) == {mode}
