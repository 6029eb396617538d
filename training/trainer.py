"""A training run: epochs, logs, checkpoints, and an exact continuation after any crash."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from smpler.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_atomically,
)
from smpler.training.distributed import Processes, SharedError, TrainSampler
from smpler.training.engine import LossLog, Precision, train_one_epoch
from smpler.training.report import Evaluation
from smpler.training.weight_average import WeightAverage
from smpler.utils.paths import display

log = logging.getLogger(__name__)

BEST_METRIC = "mpjpe"
"""What decides which epoch is kept as best.pt."""

GPU_READ_STEPS = 20
"""Steps between readings of the loss where reading means waiting."""

MUST_AGREE = ("config", "body", "batch_size", "num_samples", "seed")
"""What must be the same when a run is continued, so that it is the same run."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train; defaults are the published behaviour."""

    num_epochs: int = 100
    batch_size: int = 100
    num_workers: int = 8
    lr: float = 2e-4
    lr_schedule: str = "constant"
    """`constant`, or `cosine` down to zero at the last step."""
    warmup_steps: int = 0
    backbone_lr: float = 1.0
    """Of the backbone, times the learning rate: less for one that knows more than the rest."""
    clip_grad: float | None = None
    ema: float | None = None
    bf16: bool = False
    supervise: str = "last"
    """`last` estimate, or `all` stages' estimates."""
    seed: int = 1234
    summary_steps: int = 500
    save_steps: int = 500
    save_epochs: int = 1
    eval_epochs: int = 1
    find_unused_parameters: bool = False
    """DDP must look for parameters without gradient: HRNet's last fusions in stage 1."""

    def learning_rate(self, step: int, num_steps: int) -> float:
        """Return the rate of a step, counted from 0 over the whole run."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.lr_schedule == "constant":
            return self.lr * warmup
        return self.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def parameter_groups(model: nn.Module, backbone_lr: float) -> list[dict]:
    """Return an optimiser's groups; `factor` is what a group's learning rate is multiplied by."""
    if backbone_lr == 1:
        return [{"params": list(model.parameters()), "factor": 1.0}]
    backbone = list(model.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [{"params": others, "factor": 1.0}, {"params": backbone, "factor": backbone_lr}]


class Trainer:
    """Trains a model and keeps everything that continuing it needs.

    Args:
        model: on the device; gets DDP, and SyncBN on several GPUs, round it.
        criterion: from the last estimate and a batch to weighted terms.
        dataset: training samples; `set_epoch(epoch)` changes their augmentation.
        evaluate: measures a model; None when there is no evaluation set.
        draw: makes a picture (H, W, 3) uint8 of a batch and its estimates, for TensorBoard.
        identity: plain values saved with every checkpoint: config, body, protocol; a run is only
            continued with those that `MUST_AGREE` names.
        folder: LOG_ROOT/EXP_NAME.
        make_loader: from the sampler to an epoch's batches; default: the data set's, by processes.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        dataset: Dataset,
        evaluate: Callable[[nn.Module], Evaluation] | None,
        draw: Callable,
        options: TrainOptions,
        processes: Processes,
        identity: dict,
        folder: Path,
        make_loader: Callable[[TrainSampler], Iterable[dict]] | None = None,
    ):
        self.make_loader = make_loader or self._load
        self.criterion, self.dataset, self.evaluate, self.draw = criterion, dataset, evaluate, draw
        self.options, self.processes, self.identity = options, processes, identity
        self.folder = folder
        if processes.is_distributed and processes.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.average = None if options.ema is None else WeightAverage(model, options.ema)
        self.model = model
        self.parallel = model
        if processes.is_distributed:
            self.parallel = DistributedDataParallel(
                model, find_unused_parameters=options.find_unused_parameters
            )
        # fused: the same numbers to rounding, in a quarter of the time on a CPU
        groups = parameter_groups(model, options.backbone_lr)
        self.optimizer = torch.optim.Adam(groups, lr=options.lr, fused=True)
        self.sampler = TrainSampler(len(dataset), options.batch_size, processes, options.seed)
        self.epoch, self.step, self.best = 0, 0, math.inf
        self.num_skipped = 0
        self._owes_evaluation = False  # of the last epoch
        self.writer = None
        self._clock = (0, time.perf_counter())  # a step, and when it was done
        self._first_done = None  # likewise: the epoch's first step in this run

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    def train(self) -> None:
        """Train from where the run stands to its last epoch."""
        if self.epoch >= self.options.num_epochs and not self._owes_evaluation:
            log.info("%s has its %d epochs already.", display(self.folder), self.epoch)
            return
        if self.processes.is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for part in self.checkpoints.glob("*.part"):  # of a process that was killed
                part.unlink()
            from tensorboardX import SummaryWriter  # here, for --help and evaluation do without

            self.writer = SummaryWriter(str(self.folder), purge_step=self.step or None)
            text = json.dumps(self.identity, indent=2, default=str)
            self.writer.add_text("config", f"```\n{text}\n```", self.step)
        if self._owes_evaluation:
            self._finish_epoch()
        while self.epoch < self.options.num_epochs:
            self._train_epoch()
            self.epoch += 1
            self._finish_epoch()
        if self.writer:
            self.writer.close()

    def _finish_epoch(self) -> None:
        """Evaluate what the epoch gave, and keep it."""
        last = self.epoch == self.options.num_epochs
        metric = None
        if self.evaluate and (last or self.epoch % self.options.eval_epochs == 0):
            # the evaluation may fail, and the epoch must not be lost with it
            self._owes_evaluation = True
            self._save([self.checkpoints / "last.pt"], metric=None)
            metric = self._evaluate()
        self._owes_evaluation = False
        self._save_epoch(metric, keep=last or self.epoch % self.options.save_epochs == 0)

    def _train_epoch(self) -> None:
        per_epoch = self.sampler.batches_per_epoch
        first_batch = self.step - self.epoch * per_epoch
        self.sampler.set_position(self.epoch, first_batch)
        self.dataset.set_epoch(self.epoch)
        bar = tqdm(
            total=per_epoch * self.options.batch_size * self.processes.world_size,
            initial=first_batch * self.options.batch_size * self.processes.world_size,
            desc=f"epoch {self.epoch:03d}",
            unit="image",
            disable=not self.processes.is_main,
        )
        self._clock = (self.step, time.perf_counter())
        self._first_done = None
        if self.processes.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.processes.device)
        with bar:
            train_one_epoch(
                self.parallel,
                self.criterion,
                self.make_loader(self.sampler),
                self.optimizer,
                Precision(self.processes.device, self.options.bf16),
                learning_rate=partial(
                    self.options.learning_rate, num_steps=per_epoch * self.options.num_epochs
                ),
                first_step=self.step,
                clip_grad=self.options.clip_grad,
                supervise=self.options.supervise,
                read_every=GPU_READ_STEPS if self.processes.device.type == "cuda" else 1,
                after_step=partial(self._after_step, bar),
            )
        self._report_skipped()
        self._report_speed()

    def _report_speed(self) -> None:
        """Say how fast the epoch was, and on a GPU how much memory it took at most.

        From the first step on: workers must start before it, and algorithms are chosen in it.
        """
        step, then = self._first_done or (self.step, 0.0)
        if step == self.step:
            return
        images = (self.step - step) * self.options.batch_size * self.processes.world_size
        text = f"epoch {self.epoch:03d}: {images / (time.perf_counter() - then):.1f} images/s"
        device = self.processes.device
        if device.type == "cuda":
            text += f", at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
        log.info("%s.", text)

    def _load(self, sampler: TrainSampler) -> DataLoader:
        """Return the batches of the data set."""
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.options.num_workers,
            pin_memory=self.processes.device.type == "cuda",
            generator=torch.Generator(),  # leaves the global generator to dropout alone
        )

    def _after_step(
        self, bar: tqdm, step: int, losses: LossLog, batch: dict, estimates: list
    ) -> None:
        self.step = step
        self._first_done = self._first_done or (step, time.perf_counter())
        if self.average is not None:
            self.average.update(self.model)
        if losses.latest:
            bar.set_postfix(loss=f"{sum(losses.latest.values()):.2f}", refresh=False)
        bar.update(self.options.batch_size * self.processes.world_size)
        if self.writer and step % self.options.summary_steps == 0:
            self._write_summary(losses.read(), batch, estimates)
        at_end = step == (self.epoch + 1) * self.sampler.batches_per_epoch
        if step % self.options.save_steps == 0 and not at_end:
            losses.read()  # nothing is saved that a broken loss has touched
            self._save([self.checkpoints / "last.pt"], metric=None)

    def _write_summary(self, terms: dict[str, float], batch: dict, estimates: list) -> None:
        """Write losses, learning rate, throughput and a picture to TensorBoard."""
        values = {f"loss/{name}": value for name, value in terms.items()}
        values["loss/total"] = sum(terms.values())
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        (step, then), now = self._clock, time.perf_counter()
        images = (self.step - step) * self.options.batch_size * self.processes.world_size
        values["images_per_second"] = images / (now - then)
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.step)
        picture = self.draw(batch, estimates[-1])
        self.writer.add_image("train", picture, self.step, dataformats="HWC")
        self._clock = (self.step, time.perf_counter())

    def _report_skipped(self) -> None:
        """Say how many bad samples the epoch did without."""
        total = sum(self.processes.gather(getattr(self.dataset, "num_skipped", 0)))
        new, self.num_skipped = total - self.num_skipped, total
        if new:
            log.warning("epoch %03d: %d bad samples were skipped.", self.epoch, new)
        if self.writer:
            self.writer.add_scalar("skipped_samples", new, self.step)

    def _evaluate(self) -> float | None:
        """Measure, log, and return what decides about best.pt [mm]."""
        measured = self.model if self.average is None else self.average.module
        evaluation = self.evaluate(measured)
        if not self.processes.is_main:
            return None
        summary = evaluation.summary
        for name, value in summary.items():
            self.writer.add_scalar(f"eval/{name}", value["mean_mm"], self.step)
        for line in (f"epoch {self.epoch - 1:03d}", *evaluation.lines()):
            log.info(line)
        evaluation.save(self.folder / "evaluations", f"epoch_{self.epoch - 1:03d}")
        return summary.get(BEST_METRIC, {}).get("mean_mm")

    def _save_epoch(self, metric: float | None, keep: bool) -> None:
        paths = [self.checkpoints / "last.pt"]
        if keep:
            paths.append(self.checkpoints / f"epoch_{self.epoch - 1:03d}.pt")
        if metric is not None and metric < self.best:
            self.best = metric
            paths.append(self.checkpoints / "best.pt")
        self._save(paths, metric)

    def _save(self, paths: list[Path], metric: float | None) -> None:
        """Write the run's state; every process gives its random state, the first one writes."""
        random_states = self.processes.gather(random_state(self.processes.device))
        if not self.processes.is_main:
            return
        average = self.average.module if self.average is not None else None
        content = {
            "model": (self.model if average is None else average).state_dict(),
            "trained": None if average is None else self.model.state_dict(),
            "num_averaged": None if average is None else self.average.num_updates,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch - 1 if self._is_between_epochs else self.epoch,
            "global_iter": self.step,
            "finished_epochs": self.epoch,
            "owes_evaluation": self._owes_evaluation,
            "random_states": random_states,
            "best": self.best,
            "metric": metric,
            **self.identity,
        }
        save_atomically(content, *paths)

    @property
    def _is_between_epochs(self) -> bool:
        return self.step == self.epoch * self.sampler.batches_per_epoch

    def resume(self) -> None:
        """Continue the run of this folder from its last checkpoint, if there is one.

        Raises:
            SharedError: the run cannot be continued with these settings.
        """
        path = self.checkpoints / "last.pt"
        state = self.processes.together(lambda: self._read_state(path))
        steps = self.processes.gather(None if state is None else state["global_iter"])
        if len(set(steps)) > 1:
            raise SharedError(
                f"{display(path)} is not the same file for every process; all nodes need "
                "--log_root on a shared file system."
            )
        if state is None:
            log.info("%s is not there: the run starts from the beginning.", display(path))
            return
        self.model.load_state_dict(state["trained"] or state["model"])
        if self.average is not None:
            self.average.module.load_state_dict(state["model"])
            self.average.num_updates = int(state["num_averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["finished_epochs"], state["global_iter"]
        self.best = state["best"]
        self._owes_evaluation = state.get("owes_evaluation", False)
        restore_random_state(state["random_states"][self.processes.rank], self.processes.device)
        log.info("Continuing %s at epoch %d, step %d.", display(path), self.epoch, self.step)

    def _read_state(self, path: Path) -> dict | None:
        """Read the last checkpoint and make sure that this run can go on from it."""
        if not path.is_file():
            return None
        state = load_checkpoint(path)
        if "random_states" not in state:
            raise ValueError(f"{display(path)} was not written by a training run of this program.")
        world_size = len(state["random_states"])
        if world_size != self.processes.world_size:
            raise ValueError(
                f"{display(path)} was written by {world_size} processes, but there are "
                f"{self.processes.world_size}: start as many, or begin anew from it with "
                "--load_checkpoint."
            )
        if (state["trained"] is None) != (self.average is None):
            raise ValueError(
                f"{display(path)} was trained {'with' if state['trained'] else 'without'} --ema: "
                "continue likewise, or use another --exp_name."
            )
        factors = [group.get("factor", 1.0) for group in state["optimizer"]["param_groups"]]
        if factors != [group["factor"] for group in self.optimizer.param_groups]:
            raise ValueError(
                f"{display(path)} was trained with --backbone_lr {factors[-1]:g}, but now it is "
                f"{self.options.backbone_lr:g}: continue with the same, or use another --exp_name."
            )
        for key in MUST_AGREE:
            if state.get(key) != self.identity.get(key):
                raise ValueError(
                    f"{display(path)} was trained with {key} {state.get(key)}, but now it is "
                    f"{self.identity.get(key)}: continue with the same, or use another --exp_name."
                )
        return state
