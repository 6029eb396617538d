"""What can run a network: the model itself, or a faster copy."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector
from smpler.models.smpl import SMPL, Estimate
from smpler.models.smpler import SMPLer

BACKENDS = ("eager", "fused", "onnxruntime")
"""What runs the network: the plain model, or a faster copy that takes a while to make."""


@runtime_checkable
class Network(Protocol):
    """A `SMPLer`, or the faster copy that `optimize_for_inference` makes of it."""

    @property
    def smpl(self) -> SMPL:
        """The body layer."""
        ...

    @property
    def mean(self) -> Tensor:
        """Mean of the images' normalisation; it tells the device."""
        ...

    def __call__(self, images: Float[Tensor, "b 3 224 224"], /) -> list[Estimate]:
        """Return one estimate a stage, the answer last."""
        ...


def with_backend(model: SMPLer, backend: str) -> Network:
    """Return the model itself, or a faster copy; `backend` is a name in `BACKENDS`.

    Raises:
        ValueError: the backend does not run here, or is not installed.
    """
    if backend == "eager":
        return model
    if model.mean.device.type == "mps":  # the faster copies are made in float64
        raise ValueError(f"backend {backend} does not run on mps; use eager.")
    # imported here, as few runs need it
    from smpler.models.inference.optimize import optimize_for_inference

    try:
        return optimize_for_inference(model, backend="torch" if backend == "fused" else backend)
    except ImportError as error:
        raise ValueError(f"backend {backend}: {error}") from error


def with_fast_looks(detector: BlazePoseLandmarkDetector) -> BlazePoseLandmarkDetector:
    """Let ONNX Runtime run a landmark detector's network.

    Raises:
        ValueError: it is not installed.
    """
    # imported here, as few runs need it
    from smpler.models.inference.onnx import OnnxLandmarks

    assert isinstance(detector.network, PersonLandmarks)
    try:
        detector.network = OnnxLandmarks(detector.network)
    except ImportError as error:
        raise ValueError(f"backend onnxruntime: {error}") from error
    return detector
