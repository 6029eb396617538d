"""Entry points of `torch.hub.load(PATH, NAME, source="local")`.

Each returns a model in eval mode; called on (B, 3, 224, 224) RGB crops in [0, 1] it gives a list of
`smpler.models.smpl.Estimate`, one per stage, the last being the answer (`all_stages=True` fills
every stage). `body` returns the body layer alone.
"""

import torch

from smpler.models.smpl import SMPL
from smpler.models.weights.checkpoint import load_model, resolve_body

dependencies = ["torch", "numpy", "scipy", "jaxtyping", "safetensors"]


def smpler(checkpoint=None, body=None, regressor=None, device="cpu"):
    """SMPLer: HRNet-W32, three Transformer blocks.

    Args:
        checkpoint: path or state dict, published or ours; None leaves the initialisation, with a
            warning.
        body: path of SMPL's .pkl or .npz, or a dict of arrays under SMPL's own field names; None
            takes the checkpoint's body, else SMPL from meta_data/, else the open body.
        regressor: path or (17, V) array of Human3.6M joints; None takes the body's own.
        device: torch device.
    """
    return load_model("smpler", checkpoint, body, regressor, device)


def smpler_l(checkpoint=None, body=None, regressor=None, device="cpu"):
    """SMPLer-L: HRNet-W48, three Transformer blocks; arguments as `smpler`."""
    return load_model("smpler-l", checkpoint, body, regressor, device)


def smpler_lite(checkpoint=None, body=None, regressor=None, device="cpu"):
    """SMPLer on a small backbone: EfficientNet-Lite0; arguments as `smpler`."""
    return load_model("smpler-lite", checkpoint, body, regressor, device)


def smpler_blaze(checkpoint=None, body=None, regressor=None, device="cpu"):
    """SMPLer on BlazePose's landmark network; arguments as `smpler`."""
    return load_model("smpler-blaze", checkpoint, body, regressor, device)


def smpler_backbone(checkpoint=None, body=None, regressor=None, device="cpu"):
    """The stage-1 model: HRNet-W32 and the initial regressor; arguments as `smpler`."""
    return load_model("smpler-backbone", checkpoint, body, regressor, device)


def smpler_l_backbone(checkpoint=None, body=None, regressor=None, device="cpu"):
    """The stage-1 model of SMPLer-L: HRNet-W48; arguments as `smpler`."""
    return load_model("smpler-l-backbone", checkpoint, body, regressor, device)


def smpler_lite_backbone(checkpoint=None, body=None, regressor=None, device="cpu"):
    """The stage-1 model of SMPLer-lite; arguments as `smpler`."""
    return load_model("smpler-lite-backbone", checkpoint, body, regressor, device)


def smpler_blaze_backbone(checkpoint=None, body=None, regressor=None, device="cpu"):
    """The stage-1 model of SMPLer-blaze; arguments as `smpler`."""
    return load_model("smpler-blaze-backbone", checkpoint, body, regressor, device)


def body(body=None, regressor=None, device="cpu") -> torch.nn.Module:
    """Return the body layer: `layer(pose, betas)`, see `smpler.models.smpl.SMPL.forward`.

    Args:
        body: as in `smpler`.
        regressor: as in `smpler`.
        device: torch device.
    """
    return SMPL(resolve_body(body, regressor, checkpoint=None)).to(device)
