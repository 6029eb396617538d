"""One run: build everything, then evaluate once or train with evaluations between epochs."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from smpler.models.losses import SMPLLoss
from smpler.models.smpler import SMPLer
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.training.assembly import (
    build_evaluator,
    build_model,
    build_training_set,
    device_loader,
    prepare_model,
)
from smpler.training.distributed import Processes, SharedError, TrainSampler
from smpler.training.engine import Batch, Samples
from smpler.training.evaluator import Evaluator
from smpler.training.features import (
    EncodedBatches,
    EncodedCrops,
    crops_in_order,
    encode_crops,
    reading,
)
from smpler.training.lock import check_may_train, locked
from smpler.training.options import RunOptions
from smpler.training.pictures import draw_batch
from smpler.training.trainer import Trainer
from smpler.utils.drawing.visualize import Color
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.image import write_image
from smpler.utils.paths import prepare_folder

log = logging.getLogger(__name__)


def run(options: RunOptions, processes: Processes) -> None:
    """Build the model and its evaluator, then evaluate once or train.

    Raises:
        OSError, ValueError: a file or an option cannot be used.
        FloatingPointError: the training's loss is not finite.
    """
    protocol, seed = options.data.protocol, options.training.seed
    torch.manual_seed(seed)  # the same initial weights on every process
    model, lineage = processes.together(lambda: build_model(options.model, protocol))
    torch.manual_seed(seed + processes.rank)  # another dropout on each
    model = processes.together(lambda: prepare_model(model, options.model, processes.device))
    torch.backends.cudnn.benchmark = True  # the fastest algorithms: batches have one shape
    evaluator = processes.together(
        lambda: build_evaluator(
            options.evaluation,
            protocol,
            model,
            lineage if options.eval_only else (options.exp_name, *lineage),
            processes,
            required=options.eval_only,
        )
    )
    processes.together(lambda: prepare_folder(options.folder))
    if options.eval_only:
        assert evaluator is not None  # it was required
        path = options.folder / f"eval_{protocol.name}"
        evaluate_once(model, evaluator, path, options.mesh_color)
    else:
        with locked(options.folder, processes):
            processes.together(lambda: check_may_train(options) if processes.is_main else None)
            train(model, lineage, evaluator, options, processes)


def evaluate_once(model: SMPLer, evaluator: Evaluator, path: Path, mesh_color: Color) -> None:
    """Measure, print, write the results as PATH.*, and draw the worst samples.

    Raises:
        SharedError: they could not be written, or are not those of the whole set.
    """
    evaluation = evaluator(model)

    def tell() -> None:
        if not evaluator.processes.is_main:
            return
        for line in evaluation.lines():
            log.info(line)
        evaluation.save(path.parent, path.name)
        sheet = evaluator.draw_worst(model, evaluation, mesh_color)
        if sheet is not None:
            write_image(path.with_name(f"{path.name}_worst.png"), sheet)
        log.info("Written: %s.{json,npz,md}, worst samples: %s_worst.png.", path, path)

    evaluator.processes.together(tell)
    problem = evaluation.problem()
    if problem:
        raise SharedError(problem)


def train(
    model: SMPLer,
    lineage: tuple[str, ...],
    evaluator: Evaluator | None,
    options: RunOptions,
    processes: Processes,
) -> None:
    """Train by the protocol; config.json in the run's folder says with what."""
    data, training, body = options.data, options.training, model.smpl.body
    dataset = processes.together(
        lambda: build_training_set(data, body, training.batch_size, training.seed, processes)
    )
    make_loader = processes.together(
        lambda: device_loader(data, dataset, training.num_workers, training.seed, processes)
    )
    draw = partial(draw_batch, faces=body.faces, color=options.mesh_color)
    if data.cache_features:
        dataset, evaluator, make_loader = processes.together(
            lambda: on_features(model, dataset, evaluator, make_loader, options, processes)
        )
        draw = None
    identity = run_identity(model, lineage, dataset, options)
    trainer = Trainer(
        model,
        SMPLLoss(model.smpl, **asdict(options.loss)),
        dataset,
        evaluator,
        draw,
        training,
        processes,
        identity,
        options.folder,
        make_loader,
        find_unused_parameters=not model.blocks,  # stage 1 leaves out HRNet's last fusions
    )
    if options.auto_load:
        trainer.resume()
    elif processes.is_main:
        trainer.replaced = tuple(trainer.checkpoints.glob("*.pt"))
    if processes.is_main:
        log.info("Start: %s. Training samples: %d.", identity["start"], len(dataset))
        text = json.dumps(identity, indent=2) + "\n"
        write_bytes_whole(options.folder / "config.json", text.encode())
    trainer.train()


def on_features(
    model: SMPLer,
    dataset: Samples,
    evaluator: Evaluator | None,
    make_loader: Callable[[Iterable[list[int]]], Iterable[Batch]] | None,
    options: RunOptions,
    processes: Processes,
) -> tuple[EncodedCrops, Evaluator | None, EncodedBatches]:
    """Encode crops to train and to evaluate on, and freeze the backbone that has seen them.

    Returns:
        In place of the training set, the evaluator, and what makes batches.
    """
    training, waits, device = options.training, processes.waits, processes.device
    count = min(len(dataset), options.data.cache_features or 0)
    TrainSampler(count, training.batch_size, processes, training.seed)  # raises for too few
    last = options.folder / "checkpoints" / "last.pt"
    if options.auto_load and last.is_file():  # what is continued was trained on its features
        load_weights(model, read_checkpoint(last))
    model.backbone.requires_grad_(False)
    if make_loader is None:
        batches = reading(dataset, count, training.num_workers)
    else:  # a GPU renders them
        batches = make_loader(crops_in_order(count))
    batches = waits.each(batches, training.num_workers)
    crops = encode_crops(model, batches, count, device, "crops to train on")
    if evaluator is not None:
        whole = evaluator.dataset
        batches = reading(whole, len(whole), evaluator.num_workers)
        batches = waits.each(batches, evaluator.num_workers)
        seen = encode_crops(model, batches, len(whole), device, "crops to evaluate on")
        evaluator = replace(evaluator, dataset=seen, num_workers=0)
    return crops, evaluator, EncodedBatches(crops, training.seed)


def run_identity(
    model: SMPLer, lineage: tuple[str, ...], dataset: Samples, options: RunOptions
) -> dict:
    """Return what config.json and every checkpoint say about the run, as plain values."""
    body = model.smpl.body
    return {
        "config": model.config.to_dict(),
        "body": {"name": body.name, "sha256": body.sha256},
        "protocol": options.data.protocol.to_dict(),
        "batch_size": options.training.batch_size,
        "num_samples": len(dataset),
        "cache_features": options.data.cache_features,
        "seed": options.training.seed,
        "start": " < ".join(lineage),
        "arguments": options.record,
    }
