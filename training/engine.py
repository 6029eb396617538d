"""One epoch of training and one evaluation, given a model, a criterion and a loader."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from smpler.utils.metrics import mpjpe, mpve, pa_mpjpe

log = logging.getLogger(__name__)

Batch = dict[str, Any]
"""Tensors by name, and names; the image may be a list of maps, see `SMPLer.forward`."""


@runtime_checkable
class Samples(Protocol):
    """A training set: samples by number, drawn anew in each epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...

    def set_epoch(self, epoch: int) -> None:
        """Switch to the samples of an epoch."""


METRICS = ("mpve", "mpjpe", "mpjpe-pa")
GENDERED_METRICS = tuple(f"{name}-gendered" for name in METRICS)
ANNOTATION = {"mpve": "has_smpl", "mpjpe": "has_keypoints_3d", "mpjpe-pa": "has_keypoints_3d"}
ANNOTATION |= dict.fromkeys(GENDERED_METRICS, "has_smpl")
"""Metric -> the flag that says whether a sample is annotated with what it is measured against."""
FARTHEST = 1e6
"""Metres from its origin: a label that gives points farther away is a mistake."""
FLAGS = ("has_smpl", "has_keypoints_3d", "is_finite")


@dataclass(frozen=True)
class Precision:
    """The precision of a forward pass: as the weights are stored, or autocast to bfloat16."""

    device: torch.device
    bf16: bool = False

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch; names stay, and lists of maps, which are on the device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def on_device(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Move batches to the device; to a GPU, the next batch is copied while this one is used."""
    if device.type != "cuda":
        yield from (to_device(batch, device) for batch in loader)
        return
    stream, waiting = torch.cuda.Stream(device), None
    for batch in loader:
        with torch.cuda.stream(stream):
            following = to_device(batch, device), stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = following
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Let the GPU's stream wait for the copy of a batch; the CPU goes on."""
    stream = torch.cuda.current_stream()
    stream.wait_event(copied)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(stream)  # keeps its memory until this stream is done with it
    return batch


class LossLog:
    """Loss terms that stay on the device until they are read, for each reading waits for a GPU."""

    def __init__(self):
        self.latest: dict[str, float] = {}
        """Terms of the last step that was read."""
        self._unread: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Note the terms of a step."""
        self._unread.append((step, {name: term.detach() for name, term in terms.items()}))

    def read(self) -> dict[str, float]:
        """Return the terms of the last step.

        Raises:
            FloatingPointError: a loss since the last reading is not finite; the message holds the
                first such step and every term.
        """
        if self._unread:
            steps, unread = zip(*self._unread, strict=True)
            self._unread = []
            rows = torch.stack([torch.stack(list(terms.values())) for terms in unread]).tolist()
            for step, row in zip(steps, rows, strict=True):
                self.latest = dict(zip(unread[0], row, strict=True))
                if not math.isfinite(sum(row)):
                    text = ", ".join(f"{name} {value:g}" for name, value in self.latest.items())
                    raise FloatingPointError(f"The loss is not finite at step {step}: {text}.")
        return self.latest


def train_one_epoch(
    step: Callable[[Batch, float, Callable[[dict[str, Tensor]], None]], list],
    loader: Iterable[Batch],
    device: torch.device,
    learning_rate: Callable[[int], float],
    first_step: int,
    read_every: int = 1,
    after_step: Callable[[int, LossLog, Batch, list], None] = lambda *_: None,
) -> int:
    """Train on all batches of the loader.

    Args:
        step: a `smpler.training.steps.step.Step`; its model is to be in train mode.
        learning_rate: from a step, counted over all epochs, to its learning rate.
        first_step: number of the first batch's step.
        read_every: steps between readings of the losses; with 1, each step waits for its loss.
        after_step: called after each step with the number of steps done, the losses, the batch and
            the estimates.

    Returns:
        The number of the step after the last.

    Raises:
        FloatingPointError: the loss is not finite; the message holds the step and every term. It
            is raised when the losses are read; with `read_every=1`, before the weights change.
    """
    number, losses = first_step, LossLog()

    def check(terms: dict[str, Tensor]) -> None:
        losses.add(number, terms)
        if (number + 1) % read_every == 0:
            losses.read()

    for batch in on_device(loader, device):
        estimates = step(batch, learning_rate(number), check)
        number += 1
        after_step(number, losses, batch, estimates)
        del batch, estimates  # what autograd keeps of this step would live through the next one
    losses.read()
    return number


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    target_body: Callable,
    loader: Iterable[Batch],
    precision: Precision,
    gendered_body: Callable | None = None,
    flip_test: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, np.ndarray]:
    """Measure every sample of the loader once.

    Args:
        model: what is measured; it is put into eval mode.
        target_body: from pose and betas to the `PosedBody` whose vertices are the ground truth.
        gendered_body: from pose, betas and gender to the body of newer papers' ground truth, which
            adds the metrics that end in `-gendered`.
        flip_test: average each estimate with that of the mirrored image.
        progress: wraps the loader to show a progress bar.

    Returns:
        `index` (n,) and `key` (n,) of the samples; the flags `has_smpl`, `has_keypoints_3d` and
        `is_finite` (n,): what is annotated, and whether the prediction is finite; `mpjpe`,
        `mpjpe-pa`, `mpve` (n,) in metres, float64, to be used where `is_measured` says so.

    Raises:
        ValueError: a label's body or keypoints lie nowhere.
    """
    model.eval()
    names = METRICS + (GENDERED_METRICS if gendered_body else ())
    rows = {name: [] for name in ("index", "key", *FLAGS, *names)}
    for batch in progress(loader):
        batch = to_device(batch, precision.device)
        estimate = predict(model, batch["image"], precision, flip_test)
        errors = measure(estimate, target_body, batch)
        if gendered_body:
            errors |= measure_gendered(estimate, gendered_body, batch)
        rows["index"].append(batch["index"].cpu().numpy())
        rows["key"].append(np.array(batch["key"]))
        flags = {flag: batch[flag] for flag in FLAGS if flag in batch}
        flags["is_finite"] = _is_finite(estimate, errors, batch)
        for name, flag in flags.items():
            rows[name].append(flag.bool().cpu().numpy())
        for name, error in errors.items():
            rows[name].append(error.double().cpu().numpy())
    empty = {"index": np.zeros(0, np.int64), "key": np.zeros(0, "<U1")}
    empty |= dict.fromkeys(FLAGS, np.zeros(0, bool))
    return {
        name: np.concatenate(parts) if parts else empty.get(name, np.zeros(0))
        for name, parts in rows.items()
    }


@torch.inference_mode()
def predict(
    model: nn.Module, images: Tensor | list[Tensor], precision: Precision, flip_test: bool = False
):
    """Return the last estimate; with `flip_test`, its average with the mirrored images' one."""
    with precision.autocast():
        estimate = model(images)[-1]
        if not flip_test:
            return estimate
        assert isinstance(images, Tensor)  # of maps, there are no mirrored ones
        mirrored = model(images.flip(-1))[-1]
    finite = (estimate.rotmat + mirrored.rotmat).isfinite().all(dim=(1, 2, 3))
    if not finite.all():  # the singular values that average rotations refuse such numbers
        estimate, mirrored = (_unturned(part, finite) for part in (estimate, mirrored))
    return model.smpl.average_with_mirrored(estimate, mirrored)


def _unturned(estimate, finite: Tensor):
    """Return the estimate, unturned and with NaN as shape where it is not finite."""
    turned, shaped = finite[:, None, None, None], finite[:, None]
    return replace(
        estimate,
        rotmat=torch.where(turned, estimate.rotmat, torch.eye(3).to(estimate.rotmat)),
        betas=torch.where(shaped, estimate.betas, float("nan")),
    )


def _is_finite(estimate, errors: dict[str, Tensor], batch: Batch) -> Tensor:
    """Return whether each prediction, and with it what was measured of it, is finite."""
    finite = estimate.vertices.isfinite().all(dim=(1, 2))
    finite &= estimate.keypoints_3d.isfinite().all(dim=(1, 2))
    for name, error in errors.items():
        finite &= error.isfinite() | ~batch[ANNOTATION[name]].bool()
    return finite


def measure(estimate, target_body: Callable, batch: Batch) -> dict[str, Tensor]:
    """Return the errors of a batch, metres, NaN where there is no annotation.

    Raises:
        ValueError: an annotated body or its keypoints lie nowhere.
    """
    target_keypoints = batch["keypoints_3d"][..., :3].to(estimate.keypoints_3d.dtype)
    target = target_body(batch["pose"], batch["betas"])
    _check_labels(batch, target.vertices, "has_smpl")
    _check_labels(batch, target_keypoints, "has_keypoints_3d")
    errors = {
        "mpjpe": mpjpe(estimate.keypoints_3d, target_keypoints),
        "mpjpe-pa": pa_mpjpe(estimate.keypoints_3d, target_keypoints),
        "mpve": mpve(estimate.vertices, estimate.pelvis, target.vertices, target.pelvis),
    }
    return {
        name: torch.where(batch[ANNOTATION[name]], error, float("nan"))
        for name, error in errors.items()
    }


def _check_labels(batch: Batch, points: Tensor, flag: str) -> None:
    """Refuse labels whose points, posed or read, lie nowhere."""
    bad = batch[flag] & ~(points.abs() <= FARTHEST).all(dim=(1, 2))
    if bad.any():
        row = int(bad.nonzero()[0])
        name = batch["key"][row] if "key" in batch else row
        what = "vertices" if flag == "has_smpl" else "keypoints"
        raise ValueError(
            f"The label of sample {name} is wrong: its {what} are farther than "
            f"{FARTHEST:g} m away, or nowhere."
        )


def measure_gendered(estimate, gendered_body: Callable, batch: Batch) -> dict[str, Tensor]:
    """Return the errors, metres, against the body of each person's gender in the labelled pose."""
    target = gendered_body(batch["pose"], batch["betas"], batch["gender"])
    gendered = batch | {"keypoints_3d": target.keypoints_3d, "has_keypoints_3d": batch["has_smpl"]}
    errors = measure(estimate, lambda *_: target, gendered)
    return {f"{name}-gendered": error for name, error in errors.items()}


def merge_shards(shards: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join the processes' samples, in order of their indices."""
    merged = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    order = np.argsort(merged["index"], kind="stable")
    return {name: values[order] for name, values in merged.items()}


def is_measured(errors: dict[str, np.ndarray], metric: str) -> np.ndarray:
    """Return which samples have a metric: those that are annotated, with a finite prediction."""
    return errors[ANNOTATION[metric]] & errors["is_finite"]


def summarise(errors: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return mean [mm] and number of samples of each metric that any sample has.

    The mean is a correctly rounded sum: it does not depend on how samples were shared out.
    """
    summary = {}
    for name in METRICS + GENDERED_METRICS:
        if name not in errors:
            continue
        values = errors[name][is_measured(errors, name)]
        if len(values):
            mean = 1000 * math.fsum(values) / len(values)
            summary[name] = {"mean_mm": mean, "samples": len(values)}
    return summary
