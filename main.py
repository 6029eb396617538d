"""Train or evaluate SMPLer: python main.py --help; on several processes with torchrun."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from smpler.datasets import PROTOCOLS, Protocol
from smpler.datasets.sources import evaluation_set, training_set
from smpler.models.body import gendered_bodies
from smpler.models.losses import SMPLLoss
from smpler.models.smpl import SMPL, Estimate, GenderedSMPL
from smpler.models.smpler import BACKBONES, SMPLer, SMPLerConfig, build_smpler, set_dropout
from smpler.models.weights.backbones import BACKBONE_FILES, load_backbone
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.models.weights.protocol_body import protocol_body
from smpler.training.distributed import (
    Processes,
    SharedError,
    TrainSampler,
    sentence,
    start_processes,
)
from smpler.training.engine import Batch, Precision
from smpler.training.evaluator import Evaluator
from smpler.training.pictures import beside_overlays
from smpler.training.trainer import Trainer, TrainOptions
from smpler.utils.flags import Parser, above_zero, color, decay, positive, share, weight, whole
from smpler.utils.image import write_image
from smpler.utils.launcher import launched_rank
from smpler.utils.paths import display, prepare_folder

log = logging.getLogger("smpler")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; the first group holds the published flags and defaults."""
    parser = Parser(
        description="Train or evaluate SMPLer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument_group("published").add_argument
    add("--exp_name", default="smpler", help="results are written to LOG_ROOT/EXP_NAME")
    add("--log_root", type=Path, default=Path("logs"))
    add("--seed", type=whole, default=1234)
    add("--device", default="cuda", help="cuda or cpu; without a GPU the CPU does it")
    add("--num_epochs", type=positive, default=100)
    add("--lr", type=above_zero, default=2e-4)
    add("--batch_size", type=positive, default=100, help="of one process")
    add("--val_batch_size", type=positive, default=64, help="of one process")
    add("--num_workers", type=whole, default=8, help="loading processes of one process")
    add("--summary_steps", type=positive, default=500, help="steps between TensorBoard entries")
    add("--save_epochs", type=positive, default=1, help="epochs between epoch_NNN.pt")
    add("--eval_epochs", type=positive, default=1, help="epochs between evaluations")
    add("--joint_criterion", choices=["mse", "l1"], default="mse")
    add("--model_type", choices=["backbone", "smpler"], default="backbone")
    add("--hrnet_type", choices=["w32", "w48"], default="w32")
    add("--num_transformers", type=positive, default=3, help="Transformer blocks")
    add("--w_vert", type=weight, default=100.0, help="weight of the vertices' loss")
    add("--w_2dj", type=weight, default=100.0, help="weight of the 2D keypoints' loss")
    add("--w_3dj", type=weight, default=1000.0, help="weight of the 3D keypoints' loss")
    add("--w_theta", type=weight, default=50.0, help="weight of the rotations' loss")
    add("--data_mode", choices=list(PROTOCOLS), default="h36m")
    add("--load_checkpoint", type=Path, help="weights to evaluate or to start from")
    add("--eval_only", action="store_true")
    add("--mesh_color", type=color, default="0.93,0.68,0.62", help="of TensorBoard's pictures")
    add("--auto_load", type=int, choices=[0, 1], default=0, help="1: continue EXP_NAME")
    add("--clip_grad", type=above_zero, help="largest norm of the gradient")
    add = parser.add_argument_group("beyond the published").add_argument
    add("--backbone", choices=list(BACKBONES), help="instead of HRNet of --hrnet_type")
    add("--supervise", choices=["last", "all"], default="last", help="stages that have a loss")
    add("--w_betas", type=weight, default=0.0, help="weight of a loss on betas")
    add("--dropout", type=weight, help="in training, in place of the model's own: 0.5 and 0.1")
    add("--bf16", action="store_true", help="autocast the network to bfloat16")
    add("--compile", action="store_true", help="torch.compile backbone and blocks")
    add("--recompute", action="store_true", help="half the memory of activations, a longer step")
    add("--channels_last", action="store_true", help="memory layout of images and convolutions")
    add("--lr_schedule", choices=["constant", "cosine"], default="constant")
    add("--warmup_steps", type=whole, default=0, help="steps until the full learning rate")
    add("--backbone_lr", type=above_zero, default=1.0, help="of the backbone, times --lr")
    add("--ema", type=decay, help="decay of an average of the weights, evaluated in their place")
    add("--save_steps", type=positive, default=500, help="steps between last.pt in mid-epoch")
    add("--on_bad_sample", choices=["raise", "skip"], default="raise", help="in training")
    add("--gendered", action="store_true", help="3dpw: also newer papers' gendered ground truth")
    add("--flip_test", action="store_true", help="evaluate the average with the mirrored image")
    add = parser.add_argument_group("--data_mode=open, rendered people").add_argument
    add("--epoch_samples", type=positive, default=20_000, help="rendered anew in each epoch")
    add("--open_data", type=Path, help="instead: what scripts.render_dataset wrote there")
    add("--fresh", type=share, default=1.0, help="of a batch; on a GPU, the others are seen again")
    add("--pool", type=positive, default=20_000, help="crops that --fresh < 1 keeps, 150 KB each")
    add("--amass", type=Path, help="AMASS npz file or folder: half of the poses come from there")
    arguments = parser.parse_args(argv)
    if arguments.data_mode != "open" and (arguments.open_data or arguments.amass):
        parser.error("--open_data and --amass are for --data_mode=open")
    if arguments.eval_only and arguments.auto_load:
        parser.error("--eval_only takes its weights from --load_checkpoint, not by --auto_load")
    on_gpu = arguments.data_mode == "open" and not arguments.open_data
    if arguments.fresh < 1 and not on_gpu:
        parser.error("--fresh below 1 is for people rendered on a GPU, by --data_mode=open")
    if arguments.gendered and arguments.data_mode != "3dpw":
        parser.error("--gendered needs --data_mode=3dpw, whose labels carry a gender")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, or 2 when something that the user gave was unusable."""
    is_main = launched_rank() == 0
    level = logging.INFO if is_main else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    arguments = parse_arguments(argv)
    try:
        with start_processes(arguments.device) as processes:
            run(arguments, processes)
    except (OSError, ValueError, FloatingPointError) as error:
        if is_main or not isinstance(error, SharedError):
            log.error("Error: %s", sentence(error))
        return 2
    except torch.OutOfMemoryError as error:
        log.error("Error: the GPU's memory is full; use a smaller --batch_size. (%s)", error)
        return 2
    except KeyboardInterrupt:
        log.info("Stopped. --auto_load=1 continues a training from its last checkpoint.")
        return 130
    return 0


def run(arguments: argparse.Namespace, processes: Processes) -> None:
    """Build everything, then evaluate once or train."""
    protocol = PROTOCOLS[arguments.data_mode]
    torch.manual_seed(arguments.seed)
    model, lineage = processes.together(lambda: build_model(arguments, protocol))
    torch.manual_seed(arguments.seed + processes.rank)
    model = model.to(processes.device)
    if arguments.dropout is not None:
        set_dropout(model, arguments.dropout)
    if arguments.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if arguments.recompute and not hasattr(model.backbone, "recompute"):
        raise ValueError(
            f"--recompute saves what batch normalisation needs, and {model.config.backbone} has "
            "none; leave it out."
        )
    model.backbone.recompute = arguments.recompute
    torch.backends.cudnn.benchmark = True  # the fastest algorithms: batches have one shape
    if arguments.compile:
        for part in (model.backbone, *model.blocks):
            part.compile()
    evaluator = processes.together(lambda: build_evaluator(arguments, model, lineage, processes))
    folder = arguments.log_root / arguments.exp_name
    processes.together(lambda: prepare_folder(folder))
    if arguments.eval_only:
        evaluate_once(model, evaluator, folder / f"eval_{protocol.name}", arguments.mesh_color)
    else:
        train(model, lineage, evaluator, folder, arguments, processes)


def build_model(
    arguments: argparse.Namespace, protocol: Protocol
) -> tuple[SMPLer, tuple[str, ...]]:
    """Return the model with its weights, and where they come from: file, what that began with, ...

    The weights are the checkpoint's, else the backbone's published ones, else initial.
    """
    file = arguments.load_checkpoint
    checkpoint = read_checkpoint(file) if file else None
    body = protocol_body(protocol.name, protocol.regressor, checkpoint)
    num_blocks = arguments.num_transformers if arguments.model_type == "smpler" else 0
    backbone = arguments.backbone or f"hrnet-{arguments.hrnet_type}"
    model = build_smpler(SMPLerConfig(backbone, num_blocks=num_blocks), body)
    if checkpoint:
        absent = load_weights(model, checkpoint, stage_1_may_start=not arguments.eval_only)
        if absent:
            log.info("%s starts the backbone; the blocks are new.", checkpoint.source)
        if checkpoint.body_sha256 not in (None, body.sha256):
            log.warning(
                "%s was trained on another body than %r: its shapes mean something else here.",
                checkpoint.source,
                body.name,
            )
        return model, (checkpoint.source, *filter(None, [checkpoint.start]))
    path = BACKBONE_FILES[backbone]
    if path.is_file():
        load_backbone(model.backbone, path)
        log.info("Backbone: %s.", display(path))
        return model, ("initial parameters", f"backbone of {path.name}")
    name = "HRNet" if backbone.startswith("hrnet") else backbone
    log.info("Backbone: %s from initialisation; %s is not there.", name, display(path))
    return model, ("initial parameters", f"{name} from initialisation")


def build_evaluator(
    arguments: argparse.Namespace, model: SMPLer, lineage: tuple[str, ...], processes: Processes
) -> Evaluator | None:
    """Return what measures the model; None in training without an evaluation set."""
    protocol = PROTOCOLS[arguments.data_mode]
    if not arguments.eval_only:
        lineage = (arguments.exp_name, *lineage)
    try:
        dataset = evaluation_set(protocol, model.smpl.body)
    except FileNotFoundError as error:
        if arguments.eval_only:
            raise
        log.info("No evaluation between epochs: %s", error)
        return None
    return Evaluator(
        dataset=dataset,
        protocol=protocol.to_dict(),
        processes=processes,
        precision=Precision(processes.device, arguments.bf16),
        batch_size=arguments.val_batch_size,
        num_workers=arguments.num_workers,
        gendered_body=gendered_layer(model) if arguments.gendered else None,
        flip_test=arguments.flip_test,
        setting={"weights": lineage[0], "start": " < ".join(lineage[1:])},
    )


def evaluate_once(
    model: SMPLer, evaluator: Evaluator, path: Path, mesh_color: tuple[float, float, float]
) -> None:
    """Measure, print, write the results as PATH.*, and draw the worst samples."""
    evaluation = evaluator(model)
    if not evaluator.processes.is_main:
        return
    for line in evaluation.lines():
        log.info(line)
    evaluation.save(path.parent, path.name)
    sheet = evaluator.draw_worst(model, evaluation, mesh_color)
    if sheet is not None:
        write_image(path.with_name(f"{path.name}_worst.png"), sheet)
    log.info("Written: %s.{json,npz,md}, worst samples: %s_worst.png.", path, path)


def train(
    model: SMPLer,
    lineage: tuple[str, ...],
    evaluator: Evaluator | None,
    folder: Path,
    arguments: argparse.Namespace,
    processes: Processes,
) -> None:
    """Train by the protocol; the run's folder tells what it was started with."""
    protocol = PROTOCOLS[arguments.data_mode]
    dataset = processes.together(lambda: open_training_set(arguments, model, processes))
    make_loader = processes.together(lambda: device_loader(arguments, dataset, processes))
    names = {field.name for field in fields(TrainOptions)} & vars(arguments).keys()
    options = TrainOptions(
        find_unused_parameters=not model.blocks,
        **{name: getattr(arguments, name) for name in names},
    )
    body = model.smpl.body
    identity = {
        "config": model.config.to_dict(),
        "body": {"name": body.name, "sha256": body.sha256},
        "protocol": protocol.to_dict(),
        "batch_size": options.batch_size,
        "num_samples": len(dataset),
        "seed": options.seed,
        "start": " < ".join(lineage),
        "arguments": {name: _plain(value) for name, value in vars(arguments).items()},
    }
    weights = {f"w_{name}": getattr(arguments, f"w_{name}") for name in _LOSS_WEIGHTS}
    criterion = SMPLLoss(model.smpl, joint_criterion=arguments.joint_criterion, **weights)
    draw = partial(draw_batch, faces=body.faces, color=arguments.mesh_color)
    trainer = Trainer(
        model,
        criterion,
        dataset,
        evaluator,
        draw,
        options,
        processes,
        identity,
        folder,
        make_loader,
    )
    if arguments.auto_load:
        trainer.resume()
    if processes.is_main:
        log.info("Start: %s. Training samples: %d.", identity["start"], len(dataset))
        (folder / "config.json").write_text(json.dumps(identity, indent=2) + "\n")
    trainer.train()


def open_training_set(
    arguments: argparse.Namespace, model: SMPLer, processes: Processes
) -> Dataset:
    """Return the data mode's training set; it must fill a batch."""
    dataset = training_set(
        PROTOCOLS[arguments.data_mode],
        model.smpl.body,
        seed=arguments.seed,
        on_bad_sample=arguments.on_bad_sample,
        epoch_samples=arguments.epoch_samples,
        open_data=arguments.open_data,
        amass=arguments.amass,
    )
    TrainSampler(len(dataset), arguments.batch_size, processes, arguments.seed)
    return dataset


def device_loader(
    arguments: argparse.Namespace, dataset: Dataset, processes: Processes
) -> Callable[[TrainSampler], Iterable[Batch]] | None:
    """Return what renders the training set's batches on the GPU, if it is to be rendered there."""
    if not hasattr(dataset, "stream") or processes.device.type != "cuda":
        if arguments.fresh < 1:
            raise ValueError("--fresh below 1 is for people rendered on a GPU; there is none.")
        return None
    from smpler.datasets.engine.replay import DeviceBatches  # here, for scipy comes with it

    return DeviceBatches(
        dataset,
        processes.device,
        arguments.num_workers,
        arguments.fresh,
        arguments.pool,
        seed=arguments.seed + processes.rank,
    )


def gendered_layer(model: SMPLer) -> GenderedSMPL:
    """Return the bodies of newer papers' ground truth, on the model's device."""
    if model.smpl.body.name == "open":
        raise FileNotFoundError(
            "--gendered measures against SMPL's male and female bodies and needs the neutral one "
            "as well; meta_data/README.md says which three files."
        )
    male, female = gendered_bodies(model.smpl.body.h36m_regressor)
    layer = GenderedSMPL(model.smpl, SMPL(male), SMPL(female))
    return layer.to(model.mean.device)


def draw_batch(
    batch: Batch, estimate: Estimate, faces: np.ndarray, color: tuple[float, float, float]
) -> np.ndarray:
    """Return the first crops of a batch beside their overlays, (H, W, 3) uint8."""
    return np.concatenate(beside_overlays(batch["image"], estimate, faces, color, _NUM_DRAWN))


_LOSS_WEIGHTS = ("vert", "2dj", "3dj", "theta", "betas")
_NUM_DRAWN = 4


def _plain(value):
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())
