"""What a run is asked to do, sorted by concern: model, data, loss, evaluation, training.

A field that is named after a flag of `main.py` gets that flag's value. The flags' help explains
these fields, and the published defaults stand there alone.
"""

from dataclasses import dataclass
from pathlib import Path

from smpler.datasets import Protocol
from smpler.models.smpler import SMPLerConfig
from smpler.utils.drawing.visualize import Color


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network, the weights that it starts from, and how it is computed."""

    config: SMPLerConfig
    load_checkpoint: Path | None
    """Weights; None: the backbone's published ones, else initial ones."""
    stage_1_may_start: bool
    """Whether a checkpoint without Transformer blocks may start a model that has some."""
    dropout: float | None
    """In place of the model's own."""
    recompute: bool
    channels_last: bool
    compile: bool


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The training and evaluation sets; all but the protocol is about training."""

    protocol: Protocol
    on_bad_sample: str
    """`raise` or `skip`."""
    epoch_samples: int
    open_data: Path | None
    amass: Path | None
    fresh: float
    """Share of a batch that a GPU renders anew; the rest comes from a pool of earlier crops."""
    pool: int
    """Crops in that pool."""
    cache_features: int | None
    """Crops that the frozen backbone encodes once, and that are trained on."""


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Arguments of `smpler.models.losses.SMPLLoss`, under the same names."""

    w_vert: float
    w_2dj: float
    w_3dj: float
    w_theta: float
    w_betas: float
    joint_criterion: str


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a model is measured."""

    val_batch_size: int
    num_workers: int
    bf16: bool
    gendered: bool
    flip_test: bool


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How the weights are trained, and how often they are logged, saved and evaluated."""

    num_epochs: int
    batch_size: int
    num_workers: int
    lr: float
    seed: int
    summary_steps: int
    save_steps: int
    save_epochs: int
    eval_epochs: int
    lr_schedule: str = "constant"
    """`constant`, or `cosine` down to zero at the last step."""
    warmup_steps: int = 0
    minutes: float | None = None
    """The training ends after them, or after its last epoch."""
    backbone_lr: float = 1.0
    """The backbone's learning rate is `lr` times this: below 1 for a well-trained backbone."""
    regressor_lr: float = 1.0
    """The initial regressor's likewise, where the backbone is frozen."""
    clip_grad: float | None = None
    ema: float | None = None
    bf16: bool = False
    cuda_graph: bool = False
    """Whether a GPU's steps are recorded as one graph."""
    supervise: str = "last"
    """`last` estimate, or `all` stages' estimates."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One run of `main.py`: an evaluation, or a training with evaluations between its epochs."""

    exp_name: str
    """The name of the weights in the results of evaluations between epochs."""
    folder: Path
    """LOG_ROOT/EXP_NAME, where all results go."""
    eval_only: bool
    auto_load: int
    """Whether a training continues from the folder's last checkpoint, if there is one: 0 or 1."""
    overwrite: bool
    """Whether a training may begin anew over the folder's checkpoints."""
    mesh_color: Color
    """Colour of the bodies in pictures."""
    model: ModelOptions
    data: DataOptions
    loss: LossOptions
    evaluation: EvaluationOptions
    training: TrainOptions
    record: dict
    """Every flag as a plain value, saved with each checkpoint."""
