"""One run: build everything, then evaluate once or train with evaluations between epochs."""

import json
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset

from smpler.models.losses import SMPLLoss
from smpler.models.smpler import SMPLer
from smpler.training.assembly import (
    build_evaluator,
    build_model,
    build_training_set,
    device_loader,
    prepare_model,
)
from smpler.training.distributed import Processes, SharedError
from smpler.training.evaluator import Evaluator
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
    identity = run_identity(model, lineage, dataset, options)
    trainer = Trainer(
        model,
        SMPLLoss(model.smpl, **asdict(options.loss)),
        dataset,
        evaluator,
        partial(draw_batch, faces=body.faces, color=options.mesh_color),
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


def run_identity(
    model: SMPLer, lineage: tuple[str, ...], dataset: Dataset, options: RunOptions
) -> dict:
    """Return what config.json and every checkpoint say about the run, as plain values."""
    body = model.smpl.body
    return {
        "config": model.config.to_dict(),
        "body": {"name": body.name, "sha256": body.sha256},
        "protocol": options.data.protocol.to_dict(),
        "batch_size": options.training.batch_size,
        "num_samples": len(dataset),
        "seed": options.training.seed,
        "start": " < ".join(lineage),
        "arguments": options.record,
    }
