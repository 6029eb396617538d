"""Parts of a model that ONNX Runtime computes: on CPUs it is faster than torch."""

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.backbones.blazepose import INPUT_SIDE
from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.models.smpl import Estimate
from smpler.models.smpler import SMPLer


class OnnxBackbone(nn.Module):
    """The maps of a backbone in eval mode, in float32 on the CPU, for any batch.

    Making one exports the backbone: half a minute for HRNet on two cores.

    Args:
        backbone: what is exported; it is not needed afterwards.
        side: of the images, pixels; other sides are refused.

    Raises:
        ImportError: a package is not installed.
    """

    def __init__(self, backbone: nn.Module, side: int):
        super().__init__()
        self.session = make_session(backbone, [torch.zeros(2, 3, side, side)])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of normalised images, finest first."""
        return run(self.session, [images])


class OnnxHead(nn.Module):
    """What follows the backbone, with vertices in the last stage alone, for any batch.

    Args:
        model: in eval mode; of it, `estimate` is exported.
        features: the backbone's maps of two images.

    Raises:
        ImportError: a package is not installed.
    """

    def __init__(self, model: SMPLer, features: list[Float[Tensor, "2 _ _ _"]]):
        super().__init__()
        with torch.no_grad():
            stages = model.estimate(features)
        self.fields = [present_fields(estimate) for estimate in stages]
        self.session = make_session(_Head(model).eval(), features)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> list[Estimate]:
        """Return one estimate per stage, as the model's `estimate`."""
        values = iter(run(self.session, features))
        nothing: dict[str, Any] = dict.fromkeys(Estimate.__dataclass_fields__)
        return [Estimate(**nothing | {name: next(values) for name in x}) for x in self.fields]


class OnnxLandmarks(nn.Module):
    """BlazePose's landmark network in eval mode, in float32 on the CPU, for any batch.

    Making one exports the network, which takes some seconds; a look is then four times as fast.

    Args:
        network: what is exported; it is not needed afterwards.

    Raises:
        ImportError: a package is not installed.
    """

    def __init__(self, network: PersonLandmarks):
        super().__init__()
        self.session = make_session(network, [torch.zeros(2, 3, INPUT_SIDE, INPUT_SIDE)])

    def forward(
        self, images: Float[Tensor, "b 3 256 256"]
    ) -> tuple[Float[Tensor, "b 39 5"], Float[Tensor, "b"]]:
        """Return the landmarks' values and the logit of presence, as `PersonLandmarks`."""
        values, presence = run(self.session, [images])
        return values, presence


class _Head(nn.Module):
    """A model's `estimate` as a list of tensors."""

    def __init__(self, model: SMPLer):
        super().__init__()
        self.model = model

    def forward(self, *features: Tensor) -> list[Tensor]:
        stages = self.model.estimate(list(features))
        return [getattr(estimate, name) for estimate in stages for name in present_fields(estimate)]


def present_fields(estimate: Estimate) -> list[str]:
    """Return the names of the fields that are there."""
    return [name for name, value in vars(estimate).items() if value is not None]


def make_session(part: nn.Module, examples: list[Float[Tensor, "2 ..."]]):
    """Export a part for any batch, and return what runs it.

    Args:
        part: from tensors to a list of tensors; in eval mode.
        examples: of what it is given.
    """
    onnxruntime = import_onnx_runtime()
    batch = {0: torch.export.Dim("batch")}
    several = len(examples) > 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # several inputs have the same batch
        program = torch.onnx.export(
            part,
            tuple(examples),
            input_names=names_of(examples),
            dynamic_shapes=(tuple(batch for _ in examples),) if several else (batch,),
            dynamo=True,
            optimize=False,  # the session does that, in a fraction of the time
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # its threads would otherwise keep cores busy while torch computes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # an untrained HRNet's maps shrink to numbers that CPUs compute slowly
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 3  # what it cannot fold into constants is not worth a warning
    assert program is not None  # only the exporter without dynamo returns None
    model = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def names_of(tensors: list[Tensor]) -> list[str]:
    """Return names of a session's inputs."""
    return [f"given{number}" for number in range(len(tensors))]


def run(session, tensors: list[Tensor]) -> list[Tensor]:
    """Return what a session answers."""
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    given = dict(zip(names_of(tensors), arrays, strict=True))
    return [torch.from_numpy(x) for x in session.run(None, given)]


def import_onnx_runtime():
    """Return the module onnxruntime, or say what to install."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch exports with it
    except ImportError as error:
        raise ImportError(
            f"{error.name} is missing: pip install onnx onnxscript onnxruntime"
        ) from error
    return onnxruntime
