"""`SMPLer.optimize_for_inference`: whatever makes inference faster on this device, in one place."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.fast_transformer import FastBlock
from models.fused import fuse_backbone
from models.smpl import Estimate
from models.smpler import IMAGE_SIZE, SMPLer

GRAPH_SIZES = (1, 8, 32, 128)
"""Batch sizes for which CUDA graphs are recorded; others are filled up to the next."""
TOLERANCE = 1e-4
"""Largest difference from the plain model that float32 may show, metres and radians alike."""


class FastSMPLer(nn.Module):
    """A model that answers as `SMPLer.forward` does and can do nothing else.

    Made by `SMPLer.optimize_for_inference`; it holds its own weights and stays where it was made.

    Args:
        model: the plain model, whose parts are copied.
        dtype: what backbone and blocks compute in; rotations and body stay in float32.
        compile: whether torch.compile may take minutes to make it faster still.
        cuda_graphs: whether launches are recorded and replayed, on GPUs.
    """

    def __init__(self, model: SMPLer, dtype: torch.dtype, compile: bool, cuda_graphs: bool):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.device, self.dtype = model.mean.device, dtype
        self.model.backbone = fuse_backbone(self.model.backbone, IMAGE_SIZE)
        self.model.blocks = nn.ModuleList(FastBlock(block) for block in self.model.blocks)
        if compile:
            for part in (self.model.backbone, *self.model.blocks):
                part.compile(dynamic=False)
        self.cuda_graphs = cuda_graphs
        self._recorded = {}

    @property
    def smpl(self) -> nn.Module:
        """The body layer."""
        return self.model.smpl

    @property
    def config(self):
        """The network's numbers."""
        return self.model.config

    @property
    def mean(self) -> Tensor:
        """Mean of the images' normalisation."""
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
        return [_rows(estimate, len(images)) for estimate in answer]

    def _compute(self, images: Tensor, all_stages: bool, with_vertices: bool) -> list[Estimate]:
        images = images.contiguous(memory_format=torch.channels_last)
        reduced = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=reduced):
            return self.model(images, all_stages, with_vertices)

    def _record(self, size: int, all_stages: bool, with_vertices: bool) -> tuple:
        """Record the launches of one batch size; the graph owns its input and its answer."""
        given = torch.zeros(size, 3, IMAGE_SIZE, IMAGE_SIZE, device=self.device)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, chooses algorithms, folds the keypoint regressor
                self._compute(given, all_stages, with_vertices)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self._compute(given, all_stages, with_vertices)
        return graph, given, answer


def optimize_for_inference(
    model: SMPLer,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    cuda_graphs: bool | None = None,
    check: bool = True,
) -> FastSMPLer:
    """Return a faster copy of a model, see `SMPLer.optimize_for_inference`."""
    device = model.mean.device
    if model.mean.dtype != torch.float32:
        raise ValueError(f"The model is {model.mean.dtype}; float32 weights are optimised.")
    if cuda_graphs is None:
        cuda_graphs = device.type == "cuda"
    if cuda_graphs and device.type != "cuda":
        raise ValueError(f"CUDA graphs need a GPU, but the model is on {device}.")
    dtype = dtype or torch.float32
    fast = FastSMPLer(model, dtype, compile, cuda_graphs)
    if check and dtype == torch.float32:
        error = largest_difference(model, fast, [1])
        if not error < TOLERANCE:
            raise RuntimeError(
                f"The optimised model differs from the plain one by {error:.2g} (at most "
                f"{TOLERANCE:g}): use the plain model and report this with your torch version."
            )
    return fast


@torch.inference_mode()
def largest_difference(
    model: SMPLer, fast: FastSMPLer, batch_sizes: Sequence[int], seed: int = 0
) -> float:
    """Return the largest difference of any number of the last estimates, on noise images."""
    generator = torch.Generator().manual_seed(seed)
    was_training, worst = model.training, 0.0
    model.eval()
    for size in batch_sizes:
        images = torch.rand(size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        images = images.to(model.mean.device)
        plain, optimised = vars(model(images)[-1]), vars(fast(images)[-1])
        for name, value in plain.items():
            if value is not None:
                worst = max(worst, (value - optimised[name]).abs().max().item())
    model.train(was_training)
    return worst


def _rows(estimate: Estimate, count: int) -> Estimate:
    """Copy the first rows out of a recorded answer, which the next replay overwrites."""
    rows = {
        name: None if value is None else value[:count].clone()
        for name, value in vars(estimate).items()
    }
    return Estimate(**rows)
