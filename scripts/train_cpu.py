"""Train smpler-blaze without a GPU, in an hour or two: python -m scripts.train_cpu --help.

A CPU affords only some ten thousand crops, and a backbone that knows real people needs little
training. So crops of the open stream are rendered once: `prepare`; and the backbone's encoder, four
fifths of its work, stays as it is, all of it or (`--kept stage8`) all but its last stage. The rest
is then trained: `train`, first the model without Transformer blocks, on the map of the stage that
was kept, which lies on disk; then, with the whole backbone as it has become, the regressor and the
blocks. Both can be cut off any time and go on where they were.
"""

import argparse
import copy
import hashlib
import math
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from smpler.datasets import PROTOCOLS
from smpler.datasets.engine.stream import SPLITS, VALIDATION_SEED, SyntheticPeople
from smpler.datasets.mirroring import mirrored_batch
from smpler.models.backbones import BACKBONES
from smpler.models.body import open_body
from smpler.models.inference.onnx import OnnxBackbone
from smpler.models.losses import SMPLLoss
from smpler.models.smpler import PRESETS, SMPLer, build_smpler, set_dropout
from smpler.models.weights.backbones import load_backbone
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.models.weights.files import read_tensors
from smpler.training.checkpoint import save_atomically
from smpler.training.engine import measure
from smpler.training.weight_average import WeightAverage
from smpler.utils.files.arrays import read_npz
from smpler.utils.flags import (
    Parser,
    above_zero,
    decay,
    input_file,
    input_folder,
    output_file,
    output_folder,
    positive,
    program,
    weight,
    whole,
)
from smpler.utils.image import CROP_SIZE
from smpler.utils.paths import display, require

CHUNK = 256
"""Crops in one file."""
MAX_GRADIENT = 50.0
"""Largest norm of the gradient."""
PRESETS_TRAINED = ("smpler-blaze-backbone", "smpler-blaze")
STAGES = ("stage4", "stage8", "stage16")
"""The encoder's, in their order."""
SIDES = ("both", "alternate", "plain")
"""How the encoder sees crops: plain and mirrored, every second one mirrored, or plain."""
LABELS = ("keypoints_2d", "keypoints_3d", "pose", "betas")


@program
def main(argv: list[str] | None = None) -> int:
    """Prepare data, or train on it."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="render chunks of crops")
    prepare.set_defaults(run=prepare_chunks)
    add = prepare.add_argument
    add("folder", type=output_folder)
    add("--split", choices=SPLITS, default="train")
    add("--first", type=whole, default=0, help="number of the first chunk")
    add("--last", type=positive, default=2, help="number after the last chunk")
    add("--step", type=positive, default=1, help="of several processes: how many")
    train = commands.add_parser("train", help="train on prepared chunks")
    train.set_defaults(run=train_on_chunks)
    add = train.add_argument
    add("folder", type=input_folder)
    add("--preset", choices=PRESETS_TRAINED, default=PRESETS_TRAINED[0])
    add("--out", type=output_file, required=True, help="checkpoint to write")
    add(
        "--load_checkpoint",
        type=input_file,
        help="start from it, not from the backbone alone",
    )
    add("--steps", type=positive, default=2000)
    add("--batch_size", type=positive, default=64)
    add("--lr", type=above_zero, default=5e-4)
    add("--pretrained_lr", type=weight, default=0.2, help="of what was trained before, times --lr")
    add("--ema", type=decay, default=0.995)
    add("--dropout", type=weight, default=0.0, help="in place of the model's own")
    add("--sides", choices=SIDES, default="both", help="alternate: each crop once, half mirrored")
    add("--kept", choices=STAGES[1:], default="stage16", help="last stage that stays as it is")
    add("--vertices", action="store_true", help="also the loss on vertices, which take their time")
    add("--w_3dj", type=weight, default=100.0)
    add("--w_2dj", type=weight, default=40.0)
    add("--w_betas", type=weight, default=0.3)
    add("--seed", type=whole, default=0)
    add("--num_eval", type=positive, default=512, help="validation samples of a report")
    add("--report_every", type=positive, default=250, help="steps; also of saving")
    add("--resume", action="store_true", help="go on with --out if it is there")
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on; `train` with --resume.", file=sys.stderr)
        return 130
    return 0


def prepare_chunks(arguments: argparse.Namespace) -> None:
    """Render the chunks that are not there yet; can be cut off any time."""
    seed = VALIDATION_SEED if arguments.split == "val" else 0
    stream = SyntheticPeople(open_body(), split=arguments.split, seed=seed)
    numbers = range(arguments.first, arguments.last, arguments.step)
    if not numbers:
        raise ValueError(f"--last {arguments.last} is not after --first {arguments.first}.")
    for number in tqdm(numbers, unit="chunk", disable=None):
        path = arguments.folder / f"{arguments.split}_{number:04d}.labels.npz"
        if path.is_file():
            continue
        samples = [stream.sample(number * CHUNK + i) for i in range(CHUNK)]
        images = np.stack([sample["image"].numpy() for sample in samples])
        labels = {key: np.stack([sample[key].numpy() for sample in samples]) for key in LABELS}
        part = path.with_name(f"{path.stem}.{os.getpid()}.part")
        for last in ("images.npy", "labels.npz"):  # labels tell that both are there
            with part.open("wb") as file:
                if last == "images.npy":
                    np.save(file, (images * 255).round().astype(np.uint8))
                else:
                    np.savez(file, **labels)
            os.replace(part, path.with_name(path.name.replace("labels.npz", last)))


class Chunks:
    """All prepared chunks of a split; crops stay on disk and are read where they are needed."""

    def __init__(self, folder: Path, split: str):
        self.files = sorted(folder.glob(f"{split}_????.labels.npz"))
        if not self.files:
            raise FileNotFoundError(
                f"{display(folder)} holds no chunks of the split {split!r}: run `python -m "
                f"scripts.train_cpu prepare {display(folder)} --split {split}` first."
            )
        self.images = [np.load(self._beside(file, "images"), mmap_mode="r") for file in self.files]
        chunks = [read_npz(file, LABELS) for file in self.files]
        labels = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in LABELS}
        self.labels = {key: torch.from_numpy(value) for key, value in labels.items()}
        self.sides, self.kept, self.encoded = "both", "stage16", None

    def __len__(self) -> int:
        return len(self.labels["pose"])

    @staticmethod
    def _beside(file: Path, what: str) -> Path:
        return file.with_name(file.name.replace("labels.npz", f"{what}.npy"))

    def encode(self, encoder: "Encoder", sides: str) -> None:
        """Let the encoder see each crop; its last map stays on disk.

        Args:
            sides: of SIDES.
        """
        self.sides, self.kept, self.encoded = sides, encoder.kept, []
        for number, file in enumerate(tqdm(self.files, unit="chunk", disable=None)):
            path = self._beside(file, f"{sides}.{encoder.name}")
            if not path.is_file():
                part = path.with_name(f"{path.stem}.{os.getpid()}.part.npy")
                np.save(part, encoder.see(self.images[number], sides))
                os.replace(part, path)
            self.encoded.append(np.load(path, mmap_mode="r"))

    def draw_sides(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return which crops are mirrored: at random, if the encoder saw them both ways."""
        drawn = rng.random(len(index)) < 0.5
        return {"both": drawn, "alternate": index % 2 == 1, "plain": index < 0}[self.sides]

    def features(self, model: SMPLer, index: np.ndarray, flip: np.ndarray) -> list[Tensor]:
        """Return the backbone's maps of crops, mirrored where `flip` holds, without a gradient.

        After `encode`, the coarsest alone, with a gradient to all but the encoder.
        """
        places = [(i // CHUNK, i % CHUNK) for i in index]
        if self.encoded is not None:
            sides = flip if self.sides == "both" else np.zeros_like(flip)
            sides = sides.astype(int)
            maps = [self.encoded[n][i, side] for (n, i), side in zip(places, sides, strict=True)]
            x = torch.from_numpy(np.stack(maps)).float()
            x = x.contiguous(memory_format=torch.channels_last)
            if self.kept == "stage8":
                x = model.backbone.stage16(x)
            return [model.backbone.look_at_all(x)[1]]
        images = torch.from_numpy(np.stack([self.images[n][i] for n, i in places]))
        flip = torch.from_numpy(flip)[:, None, None, None]
        images = torch.where(flip, images.flip(-1), images)
        with torch.no_grad():
            return model.backbone.decode(*encode(model, images))

    def targets(self, index: np.ndarray, flip: np.ndarray) -> dict[str, Tensor]:
        """Return labels as `SMPLLoss` takes them, mirrored where `flip` holds."""
        labels = {key: value[index] for key, value in self.labels.items()}
        labels = mirrored_batch(labels, torch.from_numpy(flip))
        everyone = torch.ones(len(index), dtype=torch.bool)
        return labels | {"has_smpl": everyone, "has_keypoints_3d": everyone}


@torch.no_grad()
def encode(model: SMPLer, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the encoder's maps of uint8 crops; no gradient goes there."""
    images = (images.float() / 255).contiguous(memory_format=torch.channels_last)
    return model.backbone.encode((images - model.mean) / model.std)


class Encoder:
    """A backbone's encoder, by ONNX Runtime where that is installed: three times as fast.

    Args:
        model: whose encoder it is.
        kept: its last stage that stays as it is, of STAGES.
    """

    def __init__(self, model: SMPLer, kept: str = "stage16"):
        digest = hashlib.sha256()
        for stage in STAGES[: STAGES.index(kept) + 1]:
            for tensor in getattr(model.backbone, stage).state_dict().values():
                digest.update(tensor.numpy().tobytes())
        self.kept = kept
        self.name = f"{kept}.{digest.hexdigest()[:12]}"
        """Of the maps that it makes."""
        if find_spec("onnxruntime") and find_spec("onnxscript"):
            session = OnnxBackbone(EncoderAlone(model, kept).eval(), CROP_SIZE)
            self._encode = lambda images: session(images.float() / 255)[0]
        else:
            self._encode = lambda images: encode(model, images)[STAGES.index(kept)]

    def see(self, images: np.ndarray, sides: str) -> np.ndarray:
        """Return (n, 1 or 2, c, s, s) float16: the kept stage's map of each crop, see SIDES."""
        rows = []
        for batch in np.split(images, range(32, len(images), 32)):
            batch = torch.from_numpy(np.array(batch))
            mirror = batch.flip(-1)
            if sides == "alternate":
                batch = batch.clone()
                batch[1::2] = mirror[1::2]
            views = [batch, mirror] if sides == "both" else [batch]
            x = self._encode(torch.cat(views))
            rows.append(torch.stack(x.half().contiguous().chunk(len(views)), dim=1).numpy())
        return np.concatenate(rows)


class EncoderAlone(nn.Module):
    """The encoder of a model up to one of its STAGES, from crops in [0, 1], for the export."""

    def __init__(self, model: SMPLer, kept: str):
        super().__init__()
        self.kept = STAGES.index(kept)
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """Return the stage's map; the stages after it are not exported."""
        maps = self.model.backbone.encode((images - self.model.mean) / self.model.std)
        return maps[self.kept]


def initial_model(preset: str, checkpoint: Path | None = None) -> SMPLer:
    """Return the model on a checkpoint, or on the weights that its backbone starts from."""
    model = build_smpler(PRESETS[preset], open_body())
    if checkpoint:
        load_weights(model, read_checkpoint(checkpoint), stage_1_may_start=True)
    else:
        load_backbone(model.backbone, require(BACKBONES[model.config.backbone].weights_file))
    return model


def train_on_chunks(arguments: argparse.Namespace) -> None:
    """Train a number of steps; every stage's estimate is supervised."""
    maps_as_usual = (arguments.sides, arguments.kept) == ("both", "stage16")
    if arguments.preset == "smpler-blaze" and not maps_as_usual:
        raise ValueError(
            "--sides and --kept are for smpler-blaze-backbone alone: of a model with blocks no "
            "maps are kept."
        )
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    data, held_out = Chunks(arguments.folder, "train"), Chunks(arguments.folder, "val")
    earlier = training_of(arguments) if arguments.resume and arguments.out.is_file() else None
    model = initial_model(arguments.preset, arguments.load_checkpoint)
    if earlier:  # its encoder makes the maps
        model.load_state_dict(earlier["trained"])
    model = model.to(memory_format=torch.channels_last)
    set_dropout(model, arguments.dropout)
    model.train()
    if not model.blocks:
        encoder = Encoder(model, arguments.kept)
        data.encode(encoder, arguments.sides)
        held_out.encode(encoder, "plain")
    groups = trained_parameters(model, arguments.pretrained_lr, arguments.kept)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.Adam(groups)
    average = WeightAverage(model, arguments.ema)
    criterion = SMPLLoss(
        model.smpl,
        w_3dj=arguments.w_3dj,
        w_2dj=arguments.w_2dj,
        w_betas=arguments.w_betas,
        joint_criterion="l1",
    )
    run = Run(model, average, optimizer, rng, arguments)
    if earlier:
        run.restore(earlier)
    losses, begin = [], time.time()
    for step in range(run.step, arguments.steps):
        index = rng.integers(len(data), size=arguments.batch_size)
        flip = data.draw_sides(index, rng)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, arguments)
        estimates = model.estimate(
            data.features(model, index, flip),
            all_stages=True,
            with_vertices=arguments.vertices,
        )
        targets = data.targets(index, flip)
        loss = sum(sum(criterion(stage, targets).values()) for stage in estimates) / len(estimates)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"The loss is not finite at step {step}.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        optimizer.step()
        average.update(model)
        if step + 1 == arguments.steps or (step + 1) % arguments.report_every == 0:
            metrics = evaluate(average.module, held_out, arguments.num_eval)
            seconds = time.time() - begin
            run.save(step + 1, len(data), {"loss": round(float(np.mean(losses)), 3), **metrics})
            print(f"step {step + 1}: {run.curve[-1]}, {seconds:.0f} s", flush=True)
            losses = []


def learning_rate(step: int, arguments: argparse.Namespace) -> float:
    """Return the rate of a step: warm-up, then a cosine down to nothing."""
    warmup = min(1.0, (step + 1) / 50)
    return arguments.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))


def trained_parameters(model: SMPLer, pretrained_lr: float, kept: str = "stage16") -> list[dict]:
    """Return what is trained, as an optimiser's groups; the rest stops asking for gradients.

    Trained before is, without blocks, the backbone; with them, the regressor.

    Args:
        kept: the encoder's last stage that stays as it is, of STAGES.
    """
    backbone = model.backbone
    for name in (*STAGES[: STAGES.index(kept) + 1], "laterals"):
        getattr(backbone, name).requires_grad_(False)
    if model.blocks:
        backbone.requires_grad_(False)
    before = "regressor." if model.blocks else "backbone."
    groups = {True: {"params": [], "factor": pretrained_lr}, False: {"params": [], "factor": 1.0}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith(before)]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


@torch.inference_mode()
def evaluate(model: SMPLer, held_out: Chunks, limit: int) -> dict[str, float]:
    """Return the errors of the last stage on the validation crops, millimetres."""
    model.eval()
    rows = []
    indices = np.arange(min(limit, len(held_out)))
    for index in np.split(indices, range(64, len(indices), 64)):
        plain = np.zeros(len(index), bool)
        last = model.estimate(held_out.features(model, index, plain))[-1]
        rows.append(measure(last, model.smpl, held_out.targets(index, plain)))
    errors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    return {name: round(1000 * value.mean().item(), 1) for name, value in errors.items()}


MUST_AGREE = ("preset", "sides", "kept", "seed", "batch_size", "lr", "pretrained_lr", "steps")
"""Flags that must be the same when a training goes on, so that it is the same training."""


def training_of(arguments: argparse.Namespace) -> dict:
    """Read what `Run.save` wrote of a training that is to go on.

    Raises:
        ValueError: there is none, or it was another command's.
    """
    content = read_tensors(arguments.out)
    if "training" not in content:
        raise ValueError(f"{display(arguments.out)} holds no training to resume.")
    for name in MUST_AGREE:
        before, now = content["arguments"].get(name), str(getattr(arguments, name))
        if before != now:
            raise ValueError(
                f"{display(arguments.out)} was trained with --{name} {before}, but now it is {now}:"
                " go on with the same, or use another --out."
            )
    return content["training"]


class Run:
    """What a training consists of, to be saved and restored."""

    def __init__(
        self,
        model: SMPLer,
        average: WeightAverage,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        arguments: argparse.Namespace,
    ):
        self.parts = {"trained": model, "average": average.module, "optimizer": optimizer}
        self.weights, self.rng, self.arguments = average, rng, arguments
        self.step, self.curve = 0, []

    def restore(self, training: dict) -> None:
        """Go on from what `save` wrote."""
        for name, part in self.parts.items():
            part.load_state_dict(training[name])
        self.rng.bit_generator.state = training["rng"]
        torch.set_rng_state(training["torch_rng"])
        self.step, self.curve = training["step"], training["curve"]
        self.weights.num_updates = self.step

    def save(self, step: int, crops: int, metrics: dict[str, float]) -> None:
        """Write a checkpoint that main.py, demo.py and scripts.release_weights read."""
        self.step = step
        self.curve.append({"step": step, "crops": crops, **metrics})
        model = self.parts["average"]
        body = model.smpl.body
        flags = {key: str(value) for key, value in vars(self.arguments).items() if key != "run"}
        training = {name: part.state_dict() for name, part in self.parts.items()}
        training |= {"rng": self.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}
        training |= {"step": step, "curve": self.curve}
        content = {
            "model": model.state_dict(),
            "config": model.config.to_dict(),
            "body": {"name": body.name, "sha256": body.sha256},
            "protocol": PROTOCOLS["open"].to_dict(),
            "global_iter": step,
            "batch_size": self.arguments.batch_size,
            "metric": metrics["mpjpe"],
            "arguments": flags | {"crops": str(crops), "metrics": str(metrics)},
            "training": training,
        }
        save_atomically(content, self.arguments.out)


if __name__ == "__main__":
    sys.exit(main())
