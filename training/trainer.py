"""A training run: epochs, logs, checkpoints, and an exact continuation after any crash."""

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from smpler.training.checkpoint import (
    check_continues,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_atomically,
)
from smpler.training.distributed import Processes, SharedError, TrainSampler
from smpler.training.engine import Batch, LossLog, Precision, Samples, train_one_epoch
from smpler.training.options import TrainOptions
from smpler.training.report import Evaluation
from smpler.training.steps.optimizer import (
    load_optimizer_state,
    optimizer_for,
    optimizer_state,
    parameter_groups,
)
from smpler.training.steps.schedule import Schedule
from smpler.training.steps.speed import Speed
from smpler.training.steps.step import make_step, may_record
from smpler.training.steps.weight_average import WeightAverage
from smpler.training.summary import Summary
from smpler.training.waiting.waits import end_with_parent
from smpler.utils.files.whole import clear_parts
from smpler.utils.paths import display

log = logging.getLogger(__name__)

BEST_METRIC = "mpjpe"
"""The metric by which an epoch is kept as best.pt."""

GPU_READ_STEPS = 20
"""Steps between readings of the loss on a GPU, where each reading waits for it."""


class Trainer:
    """Trains a model and keeps everything that continuing it needs.

    Args:
        model: on the device; on several processes it is wrapped in DDP, on several GPUs its batch
            normalisation becomes SyncBatchNorm.
        criterion: see `smpler.training.steps.step.Step`.
        dataset: training samples; `set_epoch(epoch)` changes their augmentation.
        evaluate: measures a model; None when there is no evaluation set.
        draw: from a batch and its last estimate to TensorBoard's picture (H, W, 3) uint8; None
            where a batch holds no images.
        identity: plain values saved with every checkpoint: config, body, protocol; a run is only
            continued if those that `smpler.training.checkpoint.MUST_AGREE` names are the same.
        folder: LOG_ROOT/EXP_NAME.
        make_loader: from the sampler to an epoch's batches; by default loading processes read them
            from `dataset`.
        find_unused_parameters: whether DDP must look for parameters that get no gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        dataset: Samples,
        evaluate: Callable[[nn.Module], Evaluation] | None,
        draw: Callable | None,
        options: TrainOptions,
        processes: Processes,
        identity: dict,
        folder: Path,
        make_loader: Callable[[TrainSampler], Iterable[Batch]] | None = None,
        find_unused_parameters: bool = False,
    ):
        self.make_loader = make_loader or self._load
        self.dataset, self.evaluate, self.draw = dataset, evaluate, draw
        self.options, self.processes, self.identity = options, processes, identity
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        if processes.is_distributed and processes.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.average = None if options.ema is None else WeightAverage(model, options.ema)
        self.model = model
        self.parallel = model
        if processes.is_distributed:
            with processes.waits.bounded():
                self.parallel = DistributedDataParallel(
                    model, find_unused_parameters=find_unused_parameters
                )
        recorded = options.cuda_graph and may_record(processes.device, processes.world_size)
        groups = parameter_groups(model, options.backbone_lr, options.regressor_lr)
        self.optimizer = optimizer_for(groups, options.lr, recorded)
        self.take_step = make_step(
            recorded,
            self.parallel,
            criterion,
            self.optimizer,
            Precision(processes.device, options.bf16),
            options.clip_grad,
            options.supervise,
            self.average,
        )
        self.sampler = TrainSampler(len(dataset), options.batch_size, processes, options.seed)
        self.speed = Speed(self.sampler.images_per_step, processes.device)
        self.schedule = Schedule(options, self.sampler.batches_per_epoch * options.num_epochs)
        self.epoch, self.step, self.best = 0, 0, math.inf
        self.num_skipped = 0
        self.replaced: tuple[Path, ...] = ()  # checkpoints that go once this run has its first
        self.summary = None  # made by the main process once it trains
        self._owes_evaluation = False  # whether the last epoch's evaluation is still to be made

    def train(self) -> None:
        """Train from where the run stands to its last epoch, or until its time is over."""
        if self._is_finished and not self._owes_evaluation:
            what = "minutes" if self.schedule.is_over else f"{self.epoch} epochs"
            log.info("%s has its %s already.", display(self.folder), what)
            return
        if self.processes.is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            clear_parts(self.checkpoints)
            self.summary = Summary(self.folder, self.step, self.identity)
        self.schedule.start()
        finished = self._is_finished
        if self._owes_evaluation:
            self._finish_epoch(finished)
        while not finished:
            self._train_epoch()
            if self.step == (self.epoch + 1) * self.sampler.batches_per_epoch:
                self.epoch += 1  # otherwise the time was over before its end
            finished = self._is_finished  # decided once: time goes on while it is saved
            self._finish_epoch(finished)
        if self.summary:
            self.summary.close()

    def _finish_epoch(self, last: bool) -> None:
        """Evaluate the epoch's weights if it is time to, and save them."""
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
            total=per_epoch * self.sampler.images_per_step,
            initial=first_batch * self.sampler.images_per_step,
            desc=f"epoch {self.epoch:03d}",
            unit="image",
            disable=not self.processes.is_main,
        )
        self.speed.begin(self.step)
        self.parallel.train()
        waits = self.processes.waits
        batches = waits.each(self.make_loader(self.sampler), self.options.num_workers)
        with bar, waits.bounded():
            train_one_epoch(
                self.take_step,
                takewhile(lambda _: not self.step or not self.schedule.is_over, batches),
                self.processes.device,
                self.schedule.learning_rate,
                first_step=self.step,
                read_every=GPU_READ_STEPS if self.processes.device.type == "cuda" else 1,
                after_step=partial(self._after_step, bar),
            )
        self._report_skipped()
        speed = self.speed.of_epoch(self.step)
        if speed:
            log.info("epoch %03d: %s.", self.epoch, speed)

    def _load(self, sampler: TrainSampler) -> DataLoader:
        """Return this process's batches, read by loading processes."""
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.options.num_workers,
            pin_memory=self.processes.device.type == "cuda",
            generator=torch.Generator(),  # leaves the global generator to dropout alone
            worker_init_fn=end_with_parent,
        )

    def _after_step(
        self, bar: tqdm, step: int, losses: LossLog, batch: Batch, estimates: list
    ) -> None:
        self.step = step
        self.speed.note(step)
        if losses.latest:
            bar.set_postfix(loss=f"{sum(losses.latest.values()):.2f}", refresh=False)
        bar.update(self.sampler.images_per_step)
        if self.summary and step % self.options.summary_steps == 0:
            terms = losses.read()
            with self.processes.own_work():
                self._write_summary(terms, batch, estimates)
        at_end = step == (self.epoch + 1) * self.sampler.batches_per_epoch
        if step % self.options.save_steps == 0 and not at_end:
            losses.read()  # raises before weights are saved that a broken loss has touched
            self._save([self.checkpoints / "last.pt"], metric=None)

    def _write_summary(self, terms: dict[str, float], batch: Batch, estimates: list) -> None:
        """Write losses, learning rate, speed and a picture to TensorBoard."""
        values = {f"loss/{name}": value for name, value in terms.items()}
        values["loss/total"] = sum(terms.values())
        values["lr"] = float(self.optimizer.param_groups[0]["lr"])
        values["images_per_second"] = self.speed.since_summary(self.step)
        self.summary.add(self.step, values)
        if self.draw:
            self.summary.add_picture(self.step, "train", self.draw(batch, estimates[-1]))

    def _report_skipped(self) -> None:
        """Log how many bad samples the epoch skipped."""
        total = sum(self.processes.gather(getattr(self.dataset, "num_skipped", 0)))
        new, self.num_skipped = total - self.num_skipped, total
        if new:
            log.warning("epoch %03d: %d bad samples were skipped.", self.epoch, new)
        if self.summary:
            self.summary.add(self.step, {"skipped_samples": new})

    def _evaluate(self) -> float | None:
        """Measure and log; return `BEST_METRIC` [mm] if it was measured, on the main process."""
        measured = self.model if self.average is None else self.average.module
        evaluation = self.evaluate(measured)
        if not self.processes.is_main:
            return None
        means = {name: value["mean_mm"] for name, value in evaluation.summary.items()}
        self.summary.add(self.step, {f"eval/{name}": mean for name, mean in means.items()})
        for line in (f"epoch {self._last_epoch:03d}", *evaluation.lines()):
            log.info(line)
        problem = evaluation.problem()
        if problem:
            log.warning("epoch %03d: %s", self._last_epoch, problem)
        evaluation.save(self.folder / "evaluations", f"epoch_{self._last_epoch:03d}")
        return None if evaluation.not_finite else means.get(BEST_METRIC)

    def _save_epoch(self, metric: float | None, keep: bool) -> None:
        paths = [self.checkpoints / "last.pt"]
        if keep:
            paths.append(self.checkpoints / f"epoch_{self._last_epoch:03d}.pt")
        if metric is not None and metric < self.best:
            self.best = metric
            paths.append(self.checkpoints / "best.pt")
        self._save(paths, metric)

    def _save(self, paths: list[Path], metric: float | None) -> None:
        """Write the run's state, with every process's random state, from the main process."""
        random_states = self.processes.gather(random_state(self.processes.device))
        if not self.processes.is_main:
            return
        average = self.average.module if self.average is not None else None
        content = {
            "model": (self.model if average is None else average).state_dict(),
            "trained": None if average is None else self.model.state_dict(),
            "num_averaged": None if average is None else self.average.num_updates,
            "optimizer": optimizer_state(self.optimizer),
            "epoch": self._last_epoch,
            "global_iter": self.step,
            "finished_epochs": self.epoch,
            "owes_evaluation": self._owes_evaluation,
            "elapsed_s": None if self.options.minutes is None else self.schedule.elapsed_s,
            "random_states": random_states,
            "best": self.best,
            "metric": metric,
            **self.identity,
        }
        with self.processes.own_work():
            save_atomically(content, *paths)
        for path in set(self.replaced) - set(paths):
            path.unlink(missing_ok=True)
        self.replaced = ()

    @property
    def _is_finished(self) -> bool:
        return self.epoch >= self.options.num_epochs or self.schedule.is_over

    @property
    def _last_epoch(self) -> int:
        """Number of the epoch that the last step was in."""
        is_between_epochs = self.step == self.epoch * self.sampler.batches_per_epoch
        return self.epoch - 1 if is_between_epochs else self.epoch

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
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.epoch, self.step = state["finished_epochs"], state["global_iter"]
        self.best = state["best"]
        self.schedule.start(state.get("elapsed_s") or 0.0)
        self._owes_evaluation = state.get("owes_evaluation", False)
        restore_random_state(state["random_states"][self.processes.rank], self.processes.device)
        log.info("Continuing %s at epoch %d, step %d.", display(path), self.epoch, self.step)

    def _read_state(self, path: Path) -> dict | None:
        """Read the last checkpoint and make sure that this run can go on from it."""
        if not path.is_file():
            return None
        state = load_checkpoint(path)
        check_continues(
            state,
            display(path),
            self.identity,
            world_size=self.processes.world_size,
            averages=self.average is not None,
            factors=[group["factor"] for group in self.optimizer.param_groups],
        )
        return state
