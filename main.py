"""Train or evaluate SMPLer: python main.py --help; on several processes with torchrun."""

import argparse
import json
import logging
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from datasets import PROTOCOLS, Protocol
from datasets.human_mesh import HumanMesh
from datasets.poses import PoseSampler
from datasets.synthetic import SyntheticPeople, SyntheticSamples, validation_set
from models.backbone_weights import BACKBONE_FILES, load_backbone
from models.body import Body, default_body, gendered_bodies, load_h36m_regressor, open_body
from models.losses import SMPLLoss
from models.pretrained import Checkpoint, load_weights, read_checkpoint
from models.smpl import SMPL, Estimate, GenderedSMPL
from models.smpler import BACKBONES, SMPLer, SMPLerConfig, build_smpler
from utils.distributed import Processes, start_processes
from utils.engine import Batch, Precision, evaluate, merge_shards
from utils.geometry import project
from utils.paths import META_DATA, datasets_root, display
from utils.report import Evaluation
from utils.trainer import Trainer, TrainOptions
from utils.visualize import overlay

log = logging.getLogger("smpler")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; the first group holds the published flags and defaults."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate SMPLer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument_group("published").add_argument
    add("--exp_name", default="smpler", help="results are written to LOG_ROOT/EXP_NAME")
    add("--log_root", type=Path, default=Path("logs"))
    add("--seed", type=int, default=1234)
    add("--device", default="cuda", help="cuda or cpu; without a GPU the CPU does it")
    add("--num_epochs", type=_positive, default=100)
    add("--lr", type=float, default=2e-4)
    add("--batch_size", type=_positive, default=100, help="of one process")
    add("--val_batch_size", type=_positive, default=64, help="of one process")
    add("--num_workers", type=int, default=8, help="loading processes of one process")
    add("--summary_steps", type=_positive, default=500, help="steps between TensorBoard entries")
    add("--save_epochs", type=_positive, default=1, help="epochs between epoch_NNN.pt")
    add("--eval_epochs", type=_positive, default=1, help="epochs between evaluations")
    add("--joint_criterion", choices=["mse", "l1"], default="mse")
    add("--model_type", choices=["backbone", "smpler"], default="backbone")
    add("--hrnet_type", choices=["w32", "w48"], default="w32")
    add("--num_transformers", type=_positive, default=3, help="Transformer blocks")
    add("--w_vert", type=float, default=100.0, help="weight of the vertices' loss")
    add("--w_2dj", type=float, default=100.0, help="weight of the 2D keypoints' loss")
    add("--w_3dj", type=float, default=1000.0, help="weight of the 3D keypoints' loss")
    add("--w_theta", type=float, default=50.0, help="weight of the rotations' loss")
    add("--data_mode", choices=list(PROTOCOLS), default="h36m")
    add("--load_checkpoint", type=Path, help="weights to evaluate or to start from")
    add("--eval_only", action="store_true")
    add("--mesh_color", type=_color, default="0.93,0.68,0.62", help="of TensorBoard's pictures")
    add("--auto_load", type=int, choices=[0, 1], default=0, help="1: continue EXP_NAME")
    add("--clip_grad", type=float, help="largest norm of the gradient")
    add = parser.add_argument_group("beyond the published").add_argument
    add("--backbone", choices=list(BACKBONES), help="instead of HRNet of --hrnet_type")
    add("--bf16", action="store_true", help="autocast the network to bfloat16")
    add("--compile", action="store_true", help="torch.compile backbone and blocks")
    add("--channels_last", action="store_true", help="memory layout of images and convolutions")
    add("--lr_schedule", choices=["constant", "cosine"], default="constant")
    add("--warmup_steps", type=int, default=0, help="steps until the full learning rate")
    add("--ema", type=float, help="decay of an average of the weights, evaluated in their place")
    add("--save_steps", type=_positive, default=500, help="steps between last.pt in mid-epoch")
    add("--on_bad_sample", choices=["raise", "skip"], default="raise", help="in training")
    add("--gendered", action="store_true", help="3dpw: also newer papers' gendered ground truth")
    add("--flip_test", action="store_true", help="evaluate the average with the mirrored image")
    add = parser.add_argument_group("--data_mode=open, rendered people").add_argument
    add("--epoch_samples", type=_positive, default=20_000, help="rendered anew in each epoch")
    add("--open_data", type=Path, help="instead: what scripts.render_dataset wrote there")
    add("--amass", type=Path, help="AMASS npz file or folder: half of the poses come from there")
    arguments = parser.parse_args(argv)
    if arguments.ema is not None and not 0 < arguments.ema < 1:
        parser.error(f"--ema {arguments.ema:g} is no decay between 0 and 1, such as 0.999")
    if arguments.data_mode != "open" and (arguments.open_data or arguments.amass):
        parser.error("--open_data and --amass are for --data_mode=open")
    if arguments.gendered and arguments.data_mode != "3dpw":
        parser.error("--gendered needs --data_mode=3dpw, whose labels carry a gender")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, or 2 when something that the user gave was unusable."""
    arguments = parse_arguments(argv)
    with start_processes(arguments.device) as processes:
        level = logging.INFO if processes.is_main else logging.ERROR
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout, force=True)
        logging.captureWarnings(True)
        try:
            run(arguments, processes)
        except (OSError, ValueError, FloatingPointError) as error:
            log.error("Error: %s", error)
            return 2
    return 0


def run(arguments: argparse.Namespace, processes: Processes) -> None:
    """Build everything, then evaluate once or train."""
    torch.manual_seed(arguments.seed + processes.rank)
    protocol = PROTOCOLS[arguments.data_mode]
    checkpoint = read_checkpoint(arguments.load_checkpoint) if arguments.load_checkpoint else None
    body = choose_body(protocol, checkpoint)
    model = build_model(arguments, body, checkpoint).to(processes.device)
    if arguments.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if arguments.compile:
        for part in (model.backbone, *model.blocks):
            part.compile()
    if arguments.eval_only:
        source = checkpoint.source if checkpoint else "initial parameters"
        evaluation = evaluate_model(model, arguments, processes, source)
        if processes.is_main:
            for line in evaluation.lines():
                log.info(line)
            evaluation.save(arguments.log_root / arguments.exp_name, f"eval_{protocol.name}")
    else:
        train_model(model, arguments, processes)


def choose_body(protocol: Protocol, checkpoint: Checkpoint | None) -> Body:
    """Return the body and the keypoint regressor of the data mode.

    SMPL from meta_data/, else the body inside an official checkpoint, else the open body. SMPL's
    keypoints come from the data mode's file; a 3DPW checkpoint may supply 3DPW's.

    Raises:
        FileNotFoundError: SMPL has no regressor for this data mode.
    """
    if protocol.name == "open":
        return open_body()
    body = default_body()
    if body.name == "open" and checkpoint and checkpoint.body:
        body = checkpoint.body
    if body.name == "open":
        log.info(
            "Body: the open body and its own keypoints (no SMPL in meta_data/); results say "
            "body=open and cannot be compared with published ones."
        )
        return body
    path = META_DATA / protocol.regressor
    if path.is_file():
        return body.with_h36m_regressor(load_h36m_regressor(path))
    inside = checkpoint.body.h36m_regressor if checkpoint and checkpoint.body else None
    if inside is not None and protocol.name in checkpoint.source:
        log.info("%s is missing; the regressor inside %s serves.", path.name, checkpoint.source)
        return body.with_h36m_regressor(inside)
    raise FileNotFoundError(
        f"{display(path)} is missing, which data mode {protocol.name} measures with; "
        "meta_data/README.md says where to get it."
    )


def build_model(arguments: argparse.Namespace, body: Body, checkpoint: Checkpoint | None) -> SMPLer:
    """Return the model with the weights of the checkpoint, else of its backbone, else initial."""
    num_blocks = arguments.num_transformers if arguments.model_type == "smpler" else 0
    backbone = arguments.backbone or f"hrnet-{arguments.hrnet_type}"
    model = build_smpler(SMPLerConfig(backbone, num_blocks=num_blocks), body)
    if checkpoint:
        absent = load_weights(model, checkpoint, stage_1_may_start=not arguments.eval_only)
        if absent:
            log.info("%s starts the backbone; the blocks are new.", checkpoint.source)
        return model
    path = BACKBONE_FILES[backbone]
    if path.is_file():
        load_backbone(model.backbone, path)
        log.info("Backbone: %s.", display(path))
    else:
        log.info("Backbone: from initialisation; %s is not there.", display(path))
    return model


def train_model(model: SMPLer, arguments: argparse.Namespace, processes: Processes) -> None:
    """Train by the protocol; the run's folder tells what it was started with."""
    protocol = PROTOCOLS[arguments.data_mode]
    dataset = training_set(arguments, model.smpl.body)
    weights = {f"w_{name}": getattr(arguments, f"w_{name}") for name in _LOSS_WEIGHTS}
    criterion = SMPLLoss(model.smpl, joint_criterion=arguments.joint_criterion, **weights)
    names = {field.name for field in fields(TrainOptions)} & vars(arguments).keys()
    options = TrainOptions(
        find_unused_parameters=not model.blocks,
        **{name: getattr(arguments, name) for name in names},
    )
    evaluate_now = None
    if protocol.evaluate is None or (datasets_root() / protocol.evaluate).is_file():
        evaluate_now = partial(
            evaluate_model, arguments=arguments, processes=processes, source=arguments.exp_name
        )
    else:
        log.info("%s is not there: no evaluation between epochs.", protocol.evaluate)
    body = model.smpl.body
    identity = {
        "config": model.config.to_dict(),
        "body": {"name": body.name, "sha256": body.sha256},
        "protocol": protocol.to_dict(),
        "batch_size": options.batch_size,
        "num_samples": len(dataset),
        "arguments": {name: _plain(value) for name, value in vars(arguments).items()},
    }
    folder = arguments.log_root / arguments.exp_name
    draw = partial(draw_batch, faces=body.faces, color=arguments.mesh_color)
    trainer = Trainer(
        model, criterion, dataset, evaluate_now, draw, options, processes, identity, folder
    )
    if arguments.auto_load:
        trainer.resume()
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(identity, indent=2) + "\n")
    trainer.train()


def training_set(arguments: argparse.Namespace, body: Body) -> HumanMesh | SyntheticSamples:
    """Return the data mode's training samples: read from disk, or rendered as they are asked for.

    Rendered samples depend on seed, epoch and index alone, as augmentation of read ones does.

    Raises:
        FileNotFoundError: the data is not there.
    """
    train = PROTOCOLS[arguments.data_mode].train
    if train is None and arguments.open_data is None:
        poses = PoseSampler(arguments.amass)
        stream = SyntheticPeople(body, poses=poses, seed=arguments.seed)
        return stream.first(arguments.epoch_samples)
    path = datasets_root() / train if train else arguments.open_data / "train.yaml"
    if train is None and not path.is_file():
        raise FileNotFoundError(
            f"{display(path)} is missing; write it by `python -m scripts.render_dataset --out "
            f"{display(arguments.open_data)} --num 20000`."
        )
    return HumanMesh(
        path, training=True, seed=arguments.seed, on_bad_sample=arguments.on_bad_sample
    )


def evaluate_model(
    model: SMPLer, arguments: argparse.Namespace, processes: Processes, source: str
) -> Evaluation:
    """Measure every sample of the protocol's evaluation set once, shared among the processes."""
    protocol = PROTOCOLS[arguments.data_mode]
    if protocol.evaluate is None:
        dataset = validation_set(model.smpl.body)
    else:
        dataset = HumanMesh(datasets_root() / protocol.evaluate, training=False)
    loader = DataLoader(
        Subset(dataset, processes.shard(len(dataset))),
        batch_size=arguments.val_batch_size,
        num_workers=arguments.num_workers,
        pin_memory=processes.device.type == "cuda",
        generator=torch.Generator(),
    )
    errors = evaluate(
        model,
        model.smpl,
        loader,
        Precision(processes.device, arguments.bf16),
        gendered_body=gendered_layer(model) if arguments.gendered else None,
        flip_test=arguments.flip_test,
        progress=partial(tqdm, desc="evaluation", disable=not processes.is_main),
    )
    body = model.smpl.body
    setting = {
        "weights": source,
        "body": body.name,
        "body_sha256": body.sha256,
        "regressor_sha256": body.regressor_sha256,
        "comparable": body.name != "open",
        "flip_test": arguments.flip_test,
    }
    return Evaluation(merge_shards(processes.gather(errors)), protocol.to_dict(), setting)


def gendered_layer(model: SMPLer) -> GenderedSMPL:
    """Return the bodies of newer papers' ground truth, on the model's device."""
    male, female = gendered_bodies(model.smpl.body.h36m_regressor)
    layer = GenderedSMPL(model.smpl, SMPL(male), SMPL(female))
    return layer.to(model.mean.device)


@torch.no_grad()
def draw_batch(
    batch: Batch, estimate: Estimate, faces: np.ndarray, color: tuple[float, float, float]
) -> np.ndarray:
    """Return the first crops of a batch beside their overlays, (H, W, 3) uint8."""
    rows = []
    for number in range(min(_NUM_DRAWN, len(batch["image"]))):
        image = batch["image"][number].permute(1, 2, 0).mul(255).byte().cpu().numpy()
        vertices = vertices_in_crop(estimate, number, image.shape[0])
        rows.append(np.concatenate([image, overlay(image, [vertices], faces, [color])], axis=1))
    return np.concatenate(rows, axis=0)


def vertices_in_crop(estimate: Estimate, number: int, size: int) -> np.ndarray:
    """Return (V, 3): pixels of the crop, and depth in the same unit."""
    vertices, cam = (x[number].float().cpu() for x in (estimate.vertices, estimate.cam))
    places = (project(vertices[None], cam[None])[0] + 1) / 2 * size
    return torch.cat([places, vertices[:, 2:] * cam[0] * size / 2], dim=1).numpy()


_LOSS_WEIGHTS = ("vert", "2dj", "3dj", "theta")
_NUM_DRAWN = 4


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _color(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not r,g,b, three numbers") from None
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise argparse.ArgumentTypeError(f"{text!r} is not within 0 and 1")
    return red, green, blue


def _plain(value):
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())
