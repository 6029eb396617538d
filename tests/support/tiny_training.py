"""A small training run that dies when asked to: python -m tests.support.tiny_training."""

import argparse
import logging
import os
import signal
from pathlib import Path

import numpy as np
import torch
from tensorboardX import record_writer
from torch import nn

from smpler.training import checkpoint
from smpler.training.distributed import start_processes
from smpler.training.options import TrainOptions
from smpler.training.report import Evaluation
from smpler.training.trainer import Trainer


class TinyModel(nn.Module):
    """Dropout and batch statistics: whatever a careless continuation would change."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )

    @property
    def backbone(self) -> nn.Module:
        """The part whose learning rate `--backbone_lr` scales."""
        return self.layers[0]

    def forward(self, x):
        return [self.layers(x)]


class TinyData(torch.utils.data.Dataset):
    """Random samples that depend on epoch and index alone."""

    epoch, num_bad = 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def num_skipped(self) -> int:
        """Bad samples so far: `num_bad` in every epoch."""
        return self.num_bad * (self.epoch + 1)

    def __len__(self) -> int:
        return 43

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.epoch, index))
        image = torch.from_numpy(rng.normal(size=6)).float()
        return {"image": image, "target": image[:3] * 2 + 1, "index": torch.tensor(index)}


class TinyLoss(nn.Module):
    """Squared error; NaN at step `nan_at`, counted from 1."""

    def __init__(self, nan_at: int | None):
        super().__init__()
        self.nan_at, self.calls = nan_at, 0

    def forward(self, estimate, batch):
        self.calls += 1
        error = (estimate - batch["target"]).square().mean()
        if self.calls == self.nan_at:
            error = error * float("nan")
        return {"first": error, "second": 0.1 * estimate.abs().mean()}


def tiny_options(**changes) -> TrainOptions:
    """Return options of 60 steps in 6 epochs of `TinyData`, with some changed."""
    options = {
        "num_epochs": 6,
        "batch_size": 4,
        "num_workers": 0,
        "lr": 1e-2,
        "seed": 1234,
        "summary_steps": 10,
        "save_steps": 3,
        "save_epochs": 2,
        "eval_epochs": 1,
    }
    return TrainOptions(**options | changes)


def main() -> None:
    """Train 60 steps of batch 4 (10 an epoch), or until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill_at", type=int)
    parser.add_argument("--kill_while_saving", type=int)
    parser.add_argument("--nan_at", type=int)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--ema", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_bad", type=int, default=0)
    parser.add_argument("--evaluation", choices=["none", "fails", "works"], default="none")
    parser.add_argument("--backbone_lr", type=float, default=1.0)
    parser.add_argument("--full_tensorboard", action="store_true", help="its disk is full")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if arguments.kill_while_saving is not None:
        die_while_saving(arguments.kill_while_saving)
    if arguments.full_tensorboard:
        record_writer.open_file = lambda _: open("/dev/full", "wb")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with start_processes("cpu") as processes:
        torch.manual_seed(processes.rank)
        options = tiny_options(
            batch_size=4 // processes.world_size,
            num_workers=arguments.num_workers,
            lr_schedule="cosine",
            warmup_steps=5,
            ema=arguments.ema,
            backbone_lr=arguments.backbone_lr,
            clip_grad=1.0,
        )
        model = TinyModel()
        identity = {"config": {}, "batch_size": options.batch_size, "num_samples": 43}
        identity["seed"] = arguments.seed
        data = TinyData()
        data.num_bad = arguments.num_bad
        trainer = Trainer(
            model,
            TinyLoss(arguments.nan_at),
            data,
            {"none": None, "fails": fail, "works": evaluate}[arguments.evaluation],
            lambda *_: np.zeros((8, 8, 3), np.uint8),
            options,
            processes,
            identity,
            arguments.folder,
        )
        if arguments.kill_at is not None:
            die_at(trainer, arguments.kill_at)
        if arguments.resume:
            trainer.resume()
        trainer.train()


def fail(model: nn.Module) -> None:
    """Stand in for an evaluation that fails."""
    raise RuntimeError("no evaluation today")


def evaluate(model: nn.Module) -> Evaluation:
    """Stand in for an evaluation that works."""
    error = float(model.layers[0].weight.detach().abs().mean())
    errors = {"index": np.arange(2), "key": np.array(["a", "b"]), "mpjpe": np.full(2, error)}
    errors |= {"has_keypoints_3d": np.ones(2, bool), "is_finite": np.ones(2, bool)}
    return Evaluation(errors, {"name": "tiny", "rule": "none"}, {})


def die_at(trainer: Trainer, step: int) -> None:
    """Kill this process right after a step, as when a machine is taken away."""
    after_step = trainer._after_step

    def then_die(bar, now, *rest):
        after_step(bar, now, *rest)
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer._after_step = then_die


def die_while_saving(count: int) -> None:
    """Kill this process half-way through writing its checkpoint number `count`."""
    saved = [0]
    save = checkpoint.torch.save

    def half(content, file):
        saved[0] += 1
        if saved[0] == count:
            file.write(b"half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file)

    checkpoint.torch.save = half


if __name__ == "__main__":
    main()
