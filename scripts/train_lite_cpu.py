"""Train smpler-lite without a GPU, in some hours: python -m scripts.train_lite_cpu --help.

A CPU affords only some ten thousand crops, and two thirds of EfficientNet-Lite's work is in its
first, widest layers. So crops of the open stream are rendered once, those layers stay as ImageNet
trained them, and their map of each crop, plain and mirrored, is kept on disk: `prepare`. The rest
is then trained on the maps: `train`, first without Transformer blocks, then with them. Statistics
of batch normalisation stay ImageNet's throughout. Both can be cut off any time and go on where they
were.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from datasets import PROTOCOLS
from datasets.augment import MIRRORED_SMPL
from datasets.synthetic import SPLITS, VALIDATION_SEED, SyntheticPeople
from models.attention import MultiHeadAttention
from models.backbone_weights import BACKBONE_FILES, load_backbone
from models.body import open_body
from models.efficientnet import OUTPUTS
from models.losses import SMPLLoss
from models.pretrained import load_weights, read_checkpoint
from models.smpl import Estimate
from models.smpler import PRESETS, SMPLer, build_smpler
from models.weight_files import read_tensors
from utils.checkpoint import save_atomically
from utils.engine import measure
from utils.joints import KEYPOINT_NAMES, mirrored
from utils.paths import display, require

CHUNK = 256
"""Crops in one file."""
KEPT_STAGES = 2
"""EfficientNet's stages that stay ImageNet's; the last of them makes the finest map."""
MAX_GRADIENT = 50.0
"""Largest norm of the gradient."""
LABELS = ("keypoints_2d", "keypoints_3d", "pose", "betas")


def main(argv: list[str] | None = None) -> None:
    """Prepare data, or train on it."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="render chunks of crops and keep their maps")
    prepare.set_defaults(run=prepare_chunks)
    prepare.add_argument("folder", type=Path)
    prepare.add_argument("--split", choices=SPLITS, default="train")
    prepare.add_argument("--first", type=int, default=0, help="number of the first chunk")
    prepare.add_argument("--last", type=int, default=2, help="number after the last chunk")
    prepare.add_argument("--step", type=int, default=1, help="of several processes: how many")
    train = commands.add_parser("train", help="train on prepared chunks")
    train.set_defaults(run=train_on_chunks)
    train.add_argument("folder", type=Path)
    train.add_argument("--preset", choices=["smpler-lite-backbone", "smpler-lite"], required=True)
    train.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    train.add_argument("--load_checkpoint", type=Path, help="start from it, not from ImageNet")
    train.add_argument("--first_trained", type=int, default=KEPT_STAGES, help="stages below stay")
    train.add_argument("--steps", type=int, default=2000)
    train.add_argument("--batch_size", type=int, default=32)
    train.add_argument("--lr", type=float, default=3e-4)
    train.add_argument("--ema", type=float, default=0.99)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--w_betas", type=float, default=0.3, help="weight of the loss on betas")
    train.add_argument("--num_eval", type=int, default=256, help="validation samples of a report")
    train.add_argument("--report_every", type=int, default=100, help="steps; also of saving")
    train.add_argument("--resume", action="store_true", help="go on with --out if it is there")
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


def prepare_chunks(arguments: argparse.Namespace) -> None:
    """Render the chunks that are not there yet and compute their maps; can be cut off any time."""
    model = initial_model("smpler-lite-backbone")
    seed = VALIDATION_SEED if arguments.split == "val" else 0
    stream = SyntheticPeople(open_body(), split=arguments.split, seed=seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.first, arguments.last, arguments.step):
        path = arguments.folder / f"{arguments.split}_{number:04d}.npz"
        if not path.is_file():
            samples = [stream.sample(number * CHUNK + i) for i in range(CHUNK)]
            content = {key: np.stack([sample[key].numpy() for sample in samples]) for key in LABELS}
            images = np.stack([sample["image"].numpy() for sample in samples])
            content["image"] = (images * 255).round().astype(np.uint8)
            part = path.with_suffix(f".{os.getpid()}.part.npz")
            np.savez(part, **content)
            os.replace(part, path)
        maps = path.with_suffix(".maps.npy")
        if not maps.is_file():
            part = path.with_suffix(f".{os.getpid()}.part.npy")
            np.save(part, finest_maps(model, np.load(path)["image"]))
            os.replace(part, maps)
            print(path, flush=True)


@torch.inference_mode()
def finest_maps(model: SMPLer, images: np.ndarray) -> np.ndarray:
    """Return (n, 2, c, 56, 56) float16: each crop's finest map, plain and mirrored."""
    backbone = model.backbone
    rows = []
    for batch in np.split(images, len(images) // 16):
        batch = torch.from_numpy(batch) / 255
        both = torch.cat([batch, batch.flip(-1)]).to(memory_format=torch.channels_last)
        x = backbone.stem((both - model.mean) / model.std)
        for stage in backbone.stages[:KEPT_STAGES]:
            x = stage(x)
        rows.append(torch.stack(x.half().contiguous().chunk(2), dim=1).numpy())
    return np.concatenate(rows)


def initial_model(preset: str) -> SMPLer:
    """Return the model on ImageNet's weights."""
    model = build_smpler(PRESETS[preset], open_body())
    load_backbone(model.backbone, require(BACKBONE_FILES[model.config.backbone]))
    return model.to(memory_format=torch.channels_last).eval()


class Chunks:
    """All prepared chunks of a split; maps stay on disk and are read where they are needed."""

    def __init__(self, folder: Path, split: str):
        files = sorted(folder.glob(f"{split}_*.maps.npy"))
        if not files:
            raise FileNotFoundError(f"{folder} holds no {split}_*.maps.npy; run `prepare` first.")
        self.maps = [np.load(file, mmap_mode="r") for file in files]
        chunks = [np.load(str(file).replace(".maps.npy", ".npz")) for file in files]
        labels = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in LABELS}
        self.labels = {key: torch.from_numpy(value) for key, value in labels.items()}
        self.seen = self.labels["keypoints_2d"][..., 2]

    def __len__(self) -> int:
        return len(self.labels["pose"])

    def batch(self, index: np.ndarray, flip: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return finest maps (b, c, 56, 56) and labels; where `flip` holds, mirrored."""
        maps = [self.maps[i // CHUNK][i % CHUNK, int(f)] for i, f in zip(index, flip, strict=True)]
        maps = torch.from_numpy(np.stack(maps)).float().to(memory_format=torch.channels_last)
        labels = {key: value[index] for key, value in self.labels.items()}
        keypoints, joints = mirrored(KEYPOINT_NAMES), MIRRORED_SMPL
        flip = torch.from_numpy(flip)
        for key, order, sign in (
            ("keypoints_2d", keypoints, [-1, 1, 1]),
            ("keypoints_3d", keypoints, [-1, 1, 1, 1]),
            ("pose", joints, [1, -1, -1]),
        ):
            value = labels[key].unflatten(1, (24, 3)) if key == "pose" else labels[key]
            other = value[:, list(order)] * torch.tensor(sign)
            value = torch.where(flip[:, None, None], other, value)
            labels[key] = value.flatten(1) if key == "pose" else value
        everyone = torch.ones(len(index), dtype=torch.bool)
        return maps, labels | {"has_smpl": everyone, "has_keypoints_3d": everyone}


def estimate(model: SMPLer, finest: Tensor, first_trained: int, all_stages: bool) -> list:
    """Continue from the finest map; stages below `first_trained` get no gradient."""
    backbone, outputs = model.backbone, [finest]
    x = finest
    for number in range(KEPT_STAGES, len(backbone.stages)):
        with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_trained):
            x = backbone.stages[number](x)
        if number in OUTPUTS:
            outputs.append(x)
    return model.estimate(outputs, all_stages)


def train_on_chunks(arguments: argparse.Namespace) -> None:
    """Train a number of steps; every stage's estimate is supervised."""
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    data, held_out = Chunks(arguments.folder, "train"), Chunks(arguments.folder, "val")
    model = initial_model(arguments.preset)
    if arguments.load_checkpoint:
        load_weights(model, read_checkpoint(arguments.load_checkpoint), stage_1_may_start=True)
    leave_out_dropout(model)
    parameters = trained_parameters(model, arguments.first_trained)
    optimizer = torch.optim.Adam(parameters, lr=arguments.lr)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(arguments.ema))
    criterion = SMPLLoss(model.smpl)
    run = Run(model, average, optimizer, rng, arguments)
    if arguments.resume and arguments.out.is_file():
        run.restore()
    set_training(model)
    losses, begin = [], time.time()
    for step in range(run.step, arguments.steps):
        index = rng.integers(len(data), size=arguments.batch_size)
        maps, labels = data.batch(index, rng.random(arguments.batch_size) < 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments)
        estimates = estimate(model, maps, arguments.first_trained, all_stages=True)
        loss = sum(
            sum(criterion(stage, labels).values()) + arguments.w_betas * betas_loss(stage, labels)
            for stage in estimates
        ) / len(estimates)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"The loss is not finite at step {step}.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        optimizer.step()
        average.update_parameters(model)
        if step + 1 == arguments.steps or (step + 1) % arguments.report_every == 0:
            metrics = evaluate(average.module, held_out, arguments.num_eval)
            seconds = time.time() - begin
            run.save(step + 1, len(data), {"loss": round(float(np.mean(losses)), 3), **metrics})
            print(f"step {step + 1}: {run.curve[-1]}, {seconds:.0f} s", flush=True)
            losses = []
            data = Chunks(arguments.folder, "train")  # more may have been prepared meanwhile


def betas_loss(estimate: Estimate, labels: dict[str, Tensor]) -> Tensor:
    """Return the mean squared error of betas, which the published loss sees through vertices only.

    A network that is not sure of the pose otherwise shrinks and bends the body to be less wrong.
    """
    return torch.nn.functional.mse_loss(estimate.betas, labels["betas"])


def learning_rate(step: int, arguments: argparse.Namespace) -> float:
    """Return the rate of a step: warm-up, then a cosine down to nothing."""
    warmup = min(1.0, (step + 1) / 50)
    return arguments.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))


def leave_out_dropout(model: SMPLer) -> None:
    """Turn dropout off: so short a run learns too little, not too much."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, MultiHeadAttention):
            module.dropout = 0.0


def trained_parameters(model: SMPLer, first_trained: int) -> list[nn.Parameter]:
    """Return what is trained; everything else stops asking for gradients."""
    frozen = [model.backbone.stem, *model.backbone.stages[:first_trained]]
    for module in frozen:
        module.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def set_training(model: SMPLer) -> None:
    """Put the model into training mode, but leave batch normalisation with its statistics."""
    model.train()
    model.backbone.eval()


@torch.inference_mode()
def evaluate(model: SMPLer, held_out: Chunks, limit: int) -> dict[str, float]:
    """Return the errors of the last stage on the validation crops, millimetres."""
    model.eval()
    rows = []
    for batch in np.split(
        np.arange(len(held_out))[:limit], range(64, min(limit, len(held_out)), 64)
    ):
        maps, labels = held_out.batch(batch, np.zeros(len(batch), bool))
        last = estimate(model, maps, KEPT_STAGES, all_stages=False)[-1]
        rows.append(measure(last, model.smpl, labels))
    errors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    set_training(model)
    return {name: round(1000 * value.mean().item(), 1) for name, value in errors.items()}


class Run:
    """What a training consists of, to be saved and restored."""

    def __init__(
        self,
        model: SMPLer,
        average: AveragedModel,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        arguments: argparse.Namespace,
    ):
        self.parts = {"trained": model, "average": average, "optimizer": optimizer}
        self.rng, self.arguments = rng, arguments
        self.step, self.curve = 0, []

    def restore(self) -> None:
        """Go on from the file that `save` wrote.

        Raises:
            ValueError: it was written by another command.
        """
        training = read_tensors(self.arguments.out).get("training", {})
        for name, part in self.parts.items():
            if name not in training:
                raise ValueError(f"{display(self.arguments.out)} holds no training to resume.")
            part.load_state_dict(training[name])
        self.rng.bit_generator.state = training["rng"]
        self.step, self.curve = training["step"], training["curve"]

    def save(self, step: int, crops: int, metrics: dict[str, float]) -> None:
        """Write a checkpoint that main.py, demo.py and scripts.release_weights read."""
        self.step = step
        self.curve.append({"step": step, "crops": crops, **metrics})
        model = self.parts["average"].module
        body = model.smpl.body
        told = {key: str(value) for key, value in vars(self.arguments).items() if key != "run"}
        training = {name: part.state_dict() for name, part in self.parts.items()}
        training |= {"rng": self.rng.bit_generator.state, "step": step, "curve": self.curve}
        content = {
            "model": model.state_dict(),
            "config": model.config.to_dict(),
            "body": {"name": body.name, "sha256": body.sha256},
            "protocol": PROTOCOLS["open"].to_dict(),
            "global_iter": step,
            "batch_size": self.arguments.batch_size,
            "metric": metrics["mpjpe"],
            "arguments": told | {"crops": str(crops), "metrics": str(metrics)},
            "training": training,
        }
        save_atomically(content, self.arguments.out)


if __name__ == "__main__":
    sys.exit(main())
