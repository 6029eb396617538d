"""Measures a model on a whole set, shared among processes, and draws the worst samples."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from smpler.models.smpler import SMPLer
from smpler.training.distributed import Processes
from smpler.training.engine import Precision, evaluate, merge_shards, predict
from smpler.training.pictures import beside_overlays, captioned_sheet
from smpler.training.report import Evaluation
from smpler.training.waiting.waits import end_with_parent

NUM_WORST = 20


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """An evaluation, ready to be run on a model."""

    dataset: Dataset
    """Its items are as `smpler.datasets.human_mesh` documents them."""
    protocol: dict
    """A `smpler.datasets.Protocol` as plain values, stored with every result."""
    processes: Processes
    precision: Precision
    batch_size: int
    num_workers: int
    gendered_body: nn.Module | None = None
    """Adds the metrics against the body of each person's gender."""
    flip_test: bool = False
    setting: dict = field(default_factory=dict)
    """What else the numbers depend on, stored with every result."""

    def __call__(self, model: SMPLer) -> Evaluation:
        """Measure every sample once; all processes get all results."""
        shard = Subset(self.dataset, self.processes.shard(len(self.dataset)))
        num_workers = min(self.num_workers, -(-len(shard) // self.batch_size))
        waits = self.processes.waits
        loader = DataLoader(
            shard,
            batch_size=self.batch_size,
            num_workers=num_workers,
            # without loading processes, samples may be on the GPU already
            pin_memory=self.precision.device.type == "cuda" and num_workers > 0,
            generator=torch.Generator(),  # leaves the global generator to training
            worker_init_fn=end_with_parent,
        )
        bar = partial(tqdm, desc="evaluation", disable=not self.processes.is_main)
        with waits.bounded():
            errors = evaluate(
                model,
                model.smpl,
                loader,
                self.precision,
                gendered_body=self.gendered_body,
                flip_test=self.flip_test,
                progress=lambda batches: waits.each(bar(batches), num_workers),
            )
        body = model.smpl.body
        setting = self.setting | {
            "body": body.name,
            "body_sha256": body.sha256,
            "regressor_sha256": body.regressor_sha256,
            "comparable": body.name != "open",
            "flip_test": self.flip_test,
        }
        return Evaluation(merge_shards(self.processes.gather(errors)), self.protocol, setting)

    def draw_worst(
        self, model: SMPLer, evaluation: Evaluation, color: tuple[float, float, float]
    ) -> UInt8[np.ndarray, "h w 3"] | None:
        """Draw the samples with the largest errors beside their overlays.

        Args:
            color: of the bodies.

        Returns:
            The sheet of pictures; None where no sample has a metric.
        """
        worst = evaluation.worst(NUM_WORST)
        if not worst:
            return None
        images = torch.stack([self.dataset[index]["image"] for index, _ in worst])
        images = images.to(self.precision.device)
        estimate = predict(model, images, self.precision, self.flip_test)
        pictures = beside_overlays(images, estimate, model.smpl.body.faces, color, len(images))
        return captioned_sheet(pictures, [caption for _, caption in worst])
