"""Make a faster copy of a model for inference on this device."""

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from smpler.models.inference.onnx import OnnxBackbone, OnnxHead
from smpler.models.inference.transformer import FastBlock
from smpler.models.smpl import SMPL, Estimate
from smpler.models.smpler import IMAGE_SIZE, SMPLer, SMPLerConfig
from smpler.models.transformer import TransformerBlock

ENGINES = ("torch", "onnxruntime")
"""What may compute."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GRAPH_SIZES = (1, 8, 32, 128)
"""Batch sizes for which CUDA graphs are recorded; others are filled up to the next."""
TOLERANCE = 1e-4
"""Largest difference from the plain model that float32 may show, metres and radians alike."""
ATTEMPTS = 3
"""Images that the check tries: one may have a joint so near a pixel's border that rounding moves
its window, which is no fault of the copy."""


class FastSMPLer(nn.Module):
    """A model that answers as `SMPLer.forward` does and can do nothing else.

    Made by `optimize_for_inference`; it holds its own weights and stays where it was made.

    Args:
        model: the plain model, whose parts are copied.
        dtype: what backbone and blocks compute in; rotations and body stay in float32.
        backend: what computes, of `ENGINES`; ONNX Runtime's head gives vertices in the last stage
            alone, what else is asked for is torch's work.
        compile: whether torch.compile may take minutes to make it faster still.
        cuda_graphs: whether launches are recorded and replayed, on GPUs.
    """

    def __init__(
        self, model: SMPLer, dtype: torch.dtype, backend: str, compile: bool, cuda_graphs: bool
    ):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.dtype, self.cuda_graphs = dtype, cuda_graphs
        backbone = fold_batch_norms(self.model.backbone)
        self.head = None
        """What follows the backbone, if that is not torch's work either."""
        if backend == "onnxruntime":
            self.model.backbone = OnnxBackbone(backbone, IMAGE_SIZE)
        else:
            # autocast would convert the weights at every call
            backbone.to(  # ty: ignore[no-matching-overload]  # torch's stubs lack memory_format
                dtype=dtype, memory_format=torch.channels_last
            )
        self.model.blocks = nn.ModuleList(
            FastBlock(block) for block in cast(list[TransformerBlock], self.model.blocks)
        )
        if backend == "onnxruntime":
            features = self.model.backbone(torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE))
            self.head = OnnxHead(self.model, features)
        if compile:
            parts = list(self.model.blocks)
            parts += [backbone] if backend == "torch" else []
            for part in parts:
                part.compile(dynamic=False)
        self._recorded = {}

    @property
    def smpl(self) -> SMPL:
        """The body layer."""
        return self.model.smpl

    @property
    def config(self) -> SMPLerConfig:
        """The network's numbers."""
        return self.model.config

    @property
    def mean(self) -> Float[Tensor, "3 1 1"]:
        """Mean of the images' normalisation; it tells the device."""
        return self.model.mean

    @torch.inference_mode()
    def forward(
        self,
        images: Float[Tensor, "b 3 224 224"],
        all_stages: bool = False,
        with_vertices: bool = True,
    ) -> list[Estimate]:
        """Estimate the person in each crop, see `SMPLer.forward`."""
        if not self.cuda_graphs or not 0 < len(images) <= GRAPH_SIZES[-1]:
            return self._compute(images, all_stages, with_vertices)
        size = next(size for size in GRAPH_SIZES if size >= len(images))
        key = (size, all_stages, with_vertices)
        if key not in self._recorded:
            self._recorded[key] = self._record(size, all_stages, with_vertices)
        graph, given, answer = self._recorded[key]
        given[: len(images)].copy_(images, non_blocking=True)
        graph.replay()
        return [first_rows(estimate, len(images)) for estimate in answer]

    def _compute(self, images: Tensor, all_stages: bool, with_vertices: bool) -> list[Estimate]:
        images = images.contiguous(memory_format=torch.channels_last)
        if self.head and with_vertices and not all_stages:
            return self.head(self.model.encode(images))
        reduced = self.dtype != torch.float32
        with torch.autocast(images.device.type, self.dtype, enabled=reduced):
            return self.model(images, all_stages, with_vertices)

    def _record(self, size: int, all_stages: bool, with_vertices: bool) -> tuple:
        """Record the launches of one batch size; the graph owns its input and its answer."""
        given = torch.zeros(size, 3, IMAGE_SIZE, IMAGE_SIZE, device=self.mean.device)
        stream = torch.cuda.Stream(given.device)
        stream.wait_stream(torch.cuda.current_stream(given.device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, chooses algorithms, folds the keypoint regressor
                self._compute(given, all_stages, with_vertices)
        torch.cuda.current_stream(given.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # on the model's GPU, which may be another than the current one
        with torch.cuda.device(given.device), torch.cuda.graph(graph, stream=stream):
            answer = self._compute(given, all_stages, with_vertices)
        return graph, given, answer


def optimize_for_inference(
    model: SMPLer,
    dtype: torch.dtype = torch.float32,
    backend: str = "torch",
    compile: bool = False,
    cuda_graphs: bool | None = None,
) -> FastSMPLer:
    """Return a faster copy of a model for inference on its device; the model stays as it is.

    Batch norm is folded into the convolutions, which run in channels-last memory; the blocks'
    attention layers run side by side; on a GPU the launches are recorded as CUDA graphs for
    batches of 1, 8, 32 and 128. In float32 the copy is compared with the plain model first. This
    takes about two seconds; `backend="onnxruntime"` and `compile` take much longer.

    Args:
        model: with weights in float32.
        dtype: torch.float16 or bfloat16 computes backbone and blocks in it, for hardware that has
            it; bfloat16 rounds eight times as coarsely.
        backend: `onnxruntime` lets ONNX Runtime compute everything, on CPUs; the model is exported
            first, for less than a minute.
        compile: also use torch.compile, which takes about two minutes for each size of batch.
        cuda_graphs: record launches; by default on GPUs.

    Raises:
        ImportError: ONNX Runtime is asked for and not installed.
        ValueError: the choices do not go together on this device.
        RuntimeError: the copy differs from the plain model by more than 1e-4.
    """
    device = model.mean.device
    if model.mean.dtype != torch.float32:
        raise ValueError(f"The model is {model.mean.dtype}; float32 weights are optimised.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; choose one of {', '.join(map(str, DTYPES))}.")
    if backend not in ENGINES:
        raise ValueError(f"backend is {backend!r}; choose one of {', '.join(ENGINES)}.")
    if backend == "onnxruntime" and (device.type != "cpu" or dtype != torch.float32):
        raise ValueError(
            f"backend 'onnxruntime' computes in float32 on the CPU, not in {dtype} on {device}; "
            "use backend 'torch'."
        )
    if cuda_graphs is None:
        cuda_graphs = device.type == "cuda"
    if cuda_graphs and device.type != "cuda":
        raise ValueError(f"CUDA graphs need a GPU, but the model is on {device}.")
    fast = FastSMPLer(model, dtype, backend, compile, cuda_graphs)
    if dtype == torch.float32:
        _check(model, fast)
    return fast


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Put each batch norm into the convolution before it, in place, and return the module.

    In our backbones what is registered after a convolution is also what follows it.
    """
    for (name, conv), (after, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, after, nn.Identity())
    for child in module.children():
        fold_batch_norms(child)
    return module


@torch.inference_mode()
def largest_difference(
    model: SMPLer, fast: Callable[[Tensor], list[Estimate]], images: Tensor
) -> float:
    """Return the largest difference of any number of the last estimates."""
    was_training = model.training
    model.eval()
    plain, optimised = vars(model(images)[-1]), vars(fast(images)[-1])
    model.train(was_training)
    errors = [
        (value - optimised[name]).abs().max() for name, value in plain.items() if value is not None
    ]
    return torch.stack(errors).max().item()  # not Python's max, which passes over nan


@contextmanager
def whole_float32() -> Generator[None]:
    """Let GPUs compute float32 as such; NVIDIA's TF32, which they otherwise may use, is coarser."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def first_rows(estimate: Estimate, count: int) -> Estimate:
    """Copy the first rows out of a recorded answer, which the next replay overwrites."""
    rows: dict[str, Any] = {
        name: None if value is None else value[:count].clone()
        for name, value in vars(estimate).items()
    }
    return Estimate(**rows)


def _check(model: SMPLer, fast: FastSMPLer) -> None:
    """Compare the copy with the plain model on noise.

    By default GPUs convolve float32 with ten bits, and the two choose different algorithms then,
    which differ by a millimetre: the check is about the arithmetic, so that it computes in whole
    float32, and does not replay launches that were recorded otherwise.

    Raises:
        RuntimeError: it differs on every image that is tried.
    """
    generator = torch.Generator().manual_seed(0)
    compute = partial(fast._compute, all_stages=False, with_vertices=True)
    for _ in range(ATTEMPTS):
        images = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        with whole_float32():
            error = largest_difference(model, compute, images.to(model.mean.device))
        if error < TOLERANCE:
            return
    raise RuntimeError(
        f"The optimised model differs from the plain one by {error:.2g} (at most {TOLERANCE:g}): "
        "use the plain model and report this with your torch version."
    )
