"""Train or evaluate SMPLer: python main.py --help; on several processes with torchrun."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from smpler.datasets import PROTOCOLS, RENDERED
from smpler.models.backbones import BACKBONES
from smpler.models.smpler import SMPLerConfig
from smpler.training.distributed import SharedError, start_processes
from smpler.training.options import (
    DataOptions,
    EvaluationOptions,
    LossOptions,
    ModelOptions,
    RunOptions,
    TrainOptions,
)
from smpler.training.run import run
from smpler.training.waiting.waits import LIMIT_S, leave
from smpler.utils.drawing.visualize import MESH_COLOR
from smpler.utils.flags import (
    Parser,
    above_zero,
    color,
    decay,
    dropout,
    positive,
    program,
    sentence,
    share,
    weight,
    whole,
)
from smpler.utils.launcher import launched_processes, launched_rank

if __name__ == "smpler.main":
    raise ImportError("main.py is a program beside the package smpler; import main.")

log = logging.getLogger("smpler")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; the first group holds the published flags and defaults."""
    published_color = ",".join(map(str, MESH_COLOR))
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
    add("--mesh_color", type=color, default=published_color, help="of TensorBoard's pictures")
    add("--auto_load", type=int, choices=[0, 1], default=0, help="1: continue EXP_NAME")
    add("--clip_grad", type=above_zero, help="largest norm of the gradient")
    add = parser.add_argument_group("beyond the published").add_argument
    add("--backbone", choices=list(BACKBONES), help="instead of HRNet of --hrnet_type")
    add("--supervise", choices=["last", "all"], default="last", help="stages that have a loss")
    add("--w_betas", type=weight, default=0.0, help="weight of a loss on betas")
    add("--dropout", type=dropout, help="in training, in place of the model's own: 0.5 and 0.1")
    add("--bf16", action="store_true", help="autocast the network to bfloat16")
    add("--compile", action="store_true", help="torch.compile backbone and blocks")
    add("--cuda_graph", action="store_true", help="on one GPU, launch a step as one recorded graph")
    add("--recompute", action="store_true", help="half the memory of activations, a longer step")
    add("--channels_last", action="store_true", help="memory layout of images and convolutions")
    add("--lr_schedule", choices=["constant", "cosine"], default="constant")
    add("--warmup_steps", type=whole, default=0, help="steps until the full learning rate")
    add("--backbone_lr", type=above_zero, default=1.0, help="of the backbone, times --lr")
    add("--minutes", type=above_zero, help="end the training after them, the rate with it")
    add("--ema", type=decay, help="decay of an average of the weights, evaluated in their place")
    add("--overwrite", action="store_true", help="begin anew over EXP_NAME's checkpoints")
    add("--save_steps", type=positive, default=500, help="steps between last.pt in mid-epoch")
    add("--on_bad_sample", choices=["raise", "skip"], default="raise", help="in training")
    help = "longest wait for another process, for a batch of the loading ones"
    add("--timeout_minutes", type=above_zero, default=LIMIT_S / 60, help=help)
    add("--gendered", action="store_true", help="3dpw: also newer papers' gendered ground truth")
    add("--flip_test", action="store_true", help="evaluate the average with the mirrored image")
    add = parser.add_argument_group("--data_mode=open and open2, rendered people").add_argument
    add("--epoch_samples", type=positive, default=20_000, help="rendered anew in each epoch")
    add("--open_data", type=Path, help="instead: what scripts.render_dataset wrote there")
    add("--fresh", type=share, default=1.0, help="of a batch; on a GPU, the others are seen again")
    add("--pool", type=positive, default=20_000, help="crops that --fresh < 1 keeps, 150 KB each")
    add("--amass", type=Path, help="AMASS npz file or folder: half of the poses come from there")
    help = "train all but the backbone, on so many crops, encoded once; --epoch_samples is theirs"
    add("--cache_features", type=positive, help=help)
    add("--regressor_lr", type=above_zero, default=1.0, help="then: of the regressor, times --lr")
    arguments = parser.parse_args(argv)
    problem = contradiction(arguments)
    if problem:
        parser.error(problem)
    return arguments


def contradiction(arguments: argparse.Namespace) -> str | None:
    """Say which flags do not go together; None when all do."""
    rendered = arguments.data_mode in RENDERED
    on_gpu = rendered and not arguments.open_data
    several = launched_processes() > 1
    rules = {
        "--open_data and --amass are for --data_mode=open and open2": (
            not rendered and (arguments.open_data or arguments.amass)
        ),
        "--eval_only takes its weights from --load_checkpoint, not by --auto_load": (
            arguments.eval_only and arguments.auto_load
        ),
        "--auto_load=1 continues what --overwrite begins anew; choose one": (
            arguments.overwrite and arguments.auto_load
        ),
        "--fresh below 1 is for people rendered on a GPU, by --data_mode=open and open2": (
            arguments.fresh < 1 and not on_gpu
        ),
        "--gendered needs --data_mode=3dpw, whose labels carry a gender": (
            arguments.gendered and arguments.data_mode != "3dpw"
        ),
        f"--timeout_minutes {arguments.timeout_minutes:g} is not in 0.01 to 10,000": (
            not 0.01 <= arguments.timeout_minutes <= 10_000
        ),
        "--minutes and --cache_features are for one process": (
            several and (arguments.minutes or arguments.cache_features)
        ),
    }
    if arguments.cache_features:
        rules |= {
            "--cache_features is for --data_mode=open and open2": not rendered,
            "--cache_features is for training, not for --eval_only": arguments.eval_only,
            "--cache_features keeps what the backbone saw: leave out --flip_test, --recompute, "
            "--backbone_lr and --fresh": (
                arguments.flip_test
                or arguments.recompute
                or arguments.backbone_lr != 1
                or arguments.fresh < 1
            ),
        }
    elif arguments.regressor_lr != 1:
        return "--regressor_lr is for --cache_features; --backbone_lr slows the backbone down"
    return next((text for text, broken in rules.items() if broken), None)


def options_from(arguments: argparse.Namespace) -> RunOptions:
    """Sort the flags by concern; the rest of the program sees only the result."""
    flags = vars(arguments)

    def of(concern: type[Any]) -> dict:
        """Return the flags that the fields of a dataclass are named after."""
        return {field.name: flags[field.name] for field in fields(concern) if field.name in flags}

    backbone = arguments.backbone or f"hrnet-{arguments.hrnet_type}"
    num_blocks = arguments.num_transformers if arguments.model_type == "smpler" else 0
    return RunOptions(
        folder=arguments.log_root / arguments.exp_name,
        model=ModelOptions(
            config=SMPLerConfig(backbone, num_blocks=num_blocks),
            stage_1_may_start=not arguments.eval_only,
            **of(ModelOptions),
        ),
        data=DataOptions(protocol=PROTOCOLS[arguments.data_mode], **of(DataOptions)),
        loss=LossOptions(**of(LossOptions)),
        evaluation=EvaluationOptions(**of(EvaluationOptions)),
        training=TrainOptions(**of(TrainOptions)),
        record={name: str(x) if isinstance(x, Path) else x for name, x in flags.items()},
        **of(RunOptions),
    )


@program
def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, 2 after a mistake of the user's, 130 after Ctrl-C."""
    is_main = launched_rank() == 0
    level = logging.INFO if is_main else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    arguments = parse_arguments(argv)
    try:
        limit_s = 60 * arguments.timeout_minutes
        with start_processes(arguments.device, limit_s) as processes:
            run(options_from(arguments), processes)
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


if __name__ == "__main__":
    leave(main)
