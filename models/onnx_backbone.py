"""A backbone that ONNX Runtime computes: on CPUs its convolutions are faster than torch's."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
        onnxruntime = import_onnx_runtime()
        images = torch.zeros(2, 3, side, side)
        program = torch.onnx.export(
            backbone,
            (images,),
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
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
        model = program.model_proto.SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of normalised images, finest first."""
        given = {"images": images.contiguous().numpy()}
        return [torch.from_numpy(x) for x in self.session.run(None, given)]


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
