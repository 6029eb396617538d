"""One training step: forward pass, loss, backward pass, update; plainly or as one CUDA graph.

A step of this model launches thousands of small kernels, and a GPU waits for the CPU to launch
them. Recorded once as a graph, they are launched as one. What is recorded must not depend on
anything that the CPU decides from step to step: the batch is copied into the memory that the
recording reads, and the learning rate is a tensor.
"""

import logging
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from smpler.training.engine import Batch, Precision
from smpler.training.steps.weight_average import WeightAverage

log = logging.getLogger(__name__)

Terms = dict[str, Tensor]
Recorder = Callable[[Callable[[], Any]], Callable[[], Any]]
"""From what a step does to what does it again and returns the same tensors with new values."""

PLAIN_STEPS = 3
"""Before the recording: libraries choose algorithms in them, and take what memory they need."""


class Step:
    """Trains a model on one batch after the other.

    Args:
        model: gives an estimate a stage; with `all_stages`, each is complete.
        criterion: from an estimate and a batch to weighted loss terms. With several stages, its
            `with_target` first adds to the batch what their losses share.
        optimizer: its groups' `factor` multiplies the learning rate.
        precision: of the forward pass.
        clip_grad: largest norm of the gradient.
        supervise: `last`: the loss is the last estimate's; `all`: the mean over all stages.
        average: of the weights, updated at every step.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Any,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        clip_grad: float | None = None,
        supervise: str = "last",
        average: WeightAverage | None = None,
    ):
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.precision, self.clip_grad, self.supervise = precision, clip_grad, supervise
        self.average = average
        self.parameters = list(model.parameters())

    def __call__(
        self, batch: Batch, learning_rate: float, check: Callable[[Terms], None]
    ) -> list[Any]:
        """Train on a batch.

        Args:
            batch: images or features, and labels, on the model's device.
            learning_rate: of a group whose factor is 1.
            check: called with the loss terms before the weights change, where that is possible.

        Returns:
            The estimates of the stages that have a loss.
        """
        self.set_rate(learning_rate)
        terms, estimates = self.look(batch)
        check(terms)
        self.learn(terms)
        if self.average is not None:
            self.average.update(self.model)
        return estimates

    def set_rate(self, learning_rate: float) -> None:
        """Set the learning rate of all groups."""
        for group in self.optimizer.param_groups:
            rate = group.get("factor", 1.0) * learning_rate
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def look(self, batch: Batch) -> tuple[Terms, list[Any]]:
        """Return the loss terms, and the estimates that they are of."""
        with self.precision.autocast():
            if self.supervise == "all":
                estimates = self.model(batch["image"], all_stages=True)
            else:
                estimates = self.model(batch["image"])[-1:]
        labels = self.criterion.with_target(batch) if len(estimates) > 1 else batch
        stages = [self.criterion(estimate, labels) for estimate in estimates]
        return {
            name: sum(stage[name] for stage in stages) / len(stages) for name in stages[0]
        }, estimates

    def learn(self, terms: Terms) -> None:
        """Change the weights by the gradient of the terms' sum."""
        self.optimizer.zero_grad(set_to_none=True)
        reduce(operator.add, terms.values()).backward()
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_grad)
        self.optimizer.step()


class RecordedStep(Step):
    """Steps that are recorded after the first few, and only played back from then on.

    All batches must have the same shapes. If the recording fails, one line says why, and the steps
    go on plainly. The losses are checked after the weights have changed.

    Args:
        record: takes the recording; `record_cuda_graph` but for tests.
        arguments: of `Step`; its optimiser must be `capturable`, see `optimizer_for`.
    """

    def __init__(self, *arguments: Any, record: Recorder, **named: Any):
        super().__init__(*arguments, **named)
        self._record = record
        self._plain_steps_left = PLAIN_STEPS
        on_gpu = self.precision.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.precision.device) if on_gpu else None
        self._batch: Batch | None = None  # where the recording reads its batch
        self._play: Callable[[], tuple[Tensor, list[Any]]] | None = None
        self._names: list[str] = []

    def __call__(
        self, batch: Batch, learning_rate: float, check: Callable[[Terms], None]
    ) -> list[Any]:
        """Train on a batch, see `Step`."""
        if self._plain_steps_left:
            self._plain_steps_left -= 1
            return self._warm_up(batch, learning_rate, check)
        if self._batch is None:
            self._batch = _like(batch)
            self._play = self._recorded()
        if self._play is None:
            return super().__call__(batch, learning_rate, check)
        self.set_rate(learning_rate)
        _copy(batch, self._batch)
        values, estimates = self._play()
        if self.average is not None:
            self.average.num_updates += 1
        # a copy, for the next step writes into the same memory before it is read
        check(dict(zip(self._names, values.clone().unbind(), strict=True)))
        return estimates

    def _warm_up(
        self, batch: Batch, learning_rate: float, check: Callable[[Terms], None]
    ) -> list[Any]:
        """Do a step on another stream than the default one, which cannot be recorded."""
        if self._stream is None:
            return super().__call__(batch, learning_rate, check)
        usual = torch.cuda.current_stream()
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            estimates = super().__call__(batch, learning_rate, check)
        usual.wait_stream(self._stream)
        return estimates

    def _recorded(self) -> Callable[[], tuple[Tensor, list[Any]]] | None:
        """Record a step; None when that fails."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            return self._record(self._work)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("The step cannot be recorded as a CUDA graph and runs plainly: %s", reason)
            return None

    def _work(self) -> tuple[Tensor, list[Any]]:
        """Do what is recorded, on the batch that lies in fixed memory."""
        assert self._batch is not None
        terms, estimates = self.look(self._batch)
        self.learn(terms)
        if self.average is not None:
            assert self.average.num_updates, "the first update copies, and would do so for ever"
            self.average.move(self.model)
        self._names = list(terms)
        return torch.stack([term.detach() for term in terms.values()]), estimates


def record_cuda_graph(work: Callable[[], Any]) -> Callable[[], Any]:
    """Record what a function launches on the GPU; see `Recorder`.

    Raises:
        RuntimeError: it waits for the GPU, or draws numbers in a way that cannot be recorded.
    """
    graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # of this thread alone: another one may be copying batches meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = work()
    finally:
        torch.cuda.set_stream(usual)  # a recording that fails leaves its own stream behind

    def play() -> Any:
        graph.replay()
        return results

    return play


def may_record(device: torch.device, num_processes: int) -> bool:
    """Say whether a run's steps can be recorded; on a GPU, one line says why if not."""
    if device.type != "cuda":
        return False
    if num_processes > 1:
        log.info("Steps are not recorded as a CUDA graph: processes exchange gradients in them.")
        return False
    return True


def make_step(recorded: bool, *arguments: Any) -> Step:
    """Return what does a run's steps.

    Args:
        recorded: whether they are recorded.
        arguments: of `Step`.
    """
    return RecordedStep(*arguments, record=record_cuda_graph) if recorded else Step(*arguments)


def _like(value: Any) -> Any:
    """Return memory for a batch like this one; what is no tensor is left out."""
    if isinstance(value, dict):
        return {key: _like(item) for key, item in value.items() if _is_tensors(item)}
    return [_like(item) for item in value] if isinstance(value, list) else torch.empty_like(value)


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, list) and all(isinstance(item, Tensor) for item in value)
    )


def _copy(source: Any, target: Any) -> None:
    """Copy the tensors of a batch into the memory of another."""
    if isinstance(target, dict):
        for key, item in target.items():
            _copy(source[key], item)
    elif isinstance(target, list):
        for part, item in zip(source, target, strict=True):
            _copy(part, item)
    else:
        target.copy_(source, non_blocking=True)
