"""Entry points of `torch.hub.load(PATH, NAME, source="local")`.

`predictor` goes from photos to bodies. Each of the others returns a model in eval mode; called on
(B, 3, 224, 224) RGB crops in [0, 1] it gives a list of `smpler.models.smpl.Estimate`, one per
stage, the last being the answer (`all_stages=True` fills every stage). `body` returns the body
layer alone.
"""

import sys
from pathlib import Path

if __name__ == "smpler.hubconf":
    raise ImportError("hubconf.py is a program beside the package smpler; import hubconf.")

_ROOT = Path(__file__).resolve().parent


def _forget_other_checkouts() -> None:
    """Let `import smpler` find this checkout, even if another smpler has been imported before."""
    package = sys.modules.get("smpler")
    file = getattr(package, "__file__", None)  # a mere folder of that name has none
    if file is not None and Path(file).resolve().parent.parent == _ROOT:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "smpler"]:
        del sys.modules[name]


_forget_other_checkouts()
sys.path.insert(0, str(_ROOT))
try:
    from smpler.models.predictor import Predictor
    from smpler.models.smpl import SMPL
    from smpler.models.smpler import SMPLer
    from smpler.models.weights.checkpoint import (
        RELEASED_FILES,
        load_model,
        released_weights,
        resolve_body,
    )
finally:
    sys.path.remove(str(_ROOT))


def _load(preset: str, checkpoint, *others) -> SMPLer:
    """Return a model; without a checkpoint, its open weights must be there."""
    if checkpoint is None and released_weights(preset) is None:
        trained = [name.replace("-", "_") for name in RELEASED_FILES if released_weights(name)]
        raise ValueError(
            f"There are no open weights of {preset.replace('-', '_')}; the trained entries are "
            f"{', '.join(['predictor', *trained])}. Give checkpoint=FILE (pretrained/README.md), "
            "or checkpoint='init' for a model at its initialisation."
        )
    return load_model(preset, checkpoint, *others)


dependencies = ["torch", "numpy", "scipy", "cv2", "PIL", "jaxtyping", "safetensors"]


def predictor(
    checkpoint=None,
    body=None,
    device=None,
    backend="eager",
    mirror=None,
    fit=None,
    landmarks=None,
) -> Predictor:
    """Return what goes from a photo (path or RGB uint8 array) to posed people.

    Arguments as of `smpler.models.predictor.Predictor.load`; by default the open weights.
    """
    return Predictor.load(checkpoint, body, device, backend, mirror, fit, landmarks)


def smpler(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """SMPLer: HRNet-W32, three Transformer blocks.

    Args:
        checkpoint: path or state dict, published or ours; None takes the open weights of this
            model, and raises an error where there are none; `init` leaves the initialisation.
        body: path of SMPL's .pkl or .npz, or a dict of arrays under SMPL's own field names; None
            takes the checkpoint's body, else SMPL from meta_data/, else the open body.
        regressor: path or (17, V) array of Human3.6M joints; None takes the body's own.
        device: torch device.
    """
    return _load("smpler", checkpoint, body, regressor, device)


def smpler_l(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """SMPLer-L: HRNet-W48, three Transformer blocks; arguments as `smpler`."""
    return _load("smpler-l", checkpoint, body, regressor, device)


def smpler_lite(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """SMPLer on a small backbone, EfficientNet-Lite0; arguments as `smpler`."""
    return _load("smpler-lite", checkpoint, body, regressor, device)


def smpler_blaze(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """SMPLer on BlazePose's landmark network; arguments as `smpler`."""
    return _load("smpler-blaze", checkpoint, body, regressor, device)


def smpler_backbone(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """The stage-1 model: HRNet-W32 and the initial regressor; arguments as `smpler`."""
    return _load("smpler-backbone", checkpoint, body, regressor, device)


def smpler_l_backbone(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """The stage-1 model of SMPLer-L: HRNet-W48; arguments as `smpler`."""
    return _load("smpler-l-backbone", checkpoint, body, regressor, device)


def smpler_lite_backbone(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """The stage-1 model of SMPLer-lite; arguments as `smpler`."""
    return _load("smpler-lite-backbone", checkpoint, body, regressor, device)


def smpler_blaze_backbone(checkpoint=None, body=None, regressor=None, device="cpu") -> SMPLer:
    """The stage-1 model of SMPLer-blaze, which the open weights are of; arguments as `smpler`."""
    return _load("smpler-blaze-backbone", checkpoint, body, regressor, device)


def body(body=None, regressor=None, device="cpu") -> SMPL:
    """Return the body layer: `layer(pose, betas)`, see `smpler.models.smpl.SMPL.forward`.

    Args:
        body: as in `smpler`.
        regressor: as in `smpler`.
        device: torch device.
    """
    return SMPL(resolve_body(body, regressor, checkpoint=None)).to(device)
