"""Builds what a run works with from its options: model, evaluator, training set, batches."""

import logging
from collections.abc import Callable, Iterable

import torch

from smpler.datasets import Protocol
from smpler.datasets.sources import evaluation_set, training_set
from smpler.models.backbones import BACKBONES
from smpler.models.body import Body, gendered_bodies
from smpler.models.smpl import SMPL, GenderedSMPL
from smpler.models.smpler import SMPLer, build_smpler, set_dropout
from smpler.models.weights.backbones import load_backbone
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.models.weights.protocol_body import protocol_body
from smpler.training.distributed import Processes, TrainSampler
from smpler.training.engine import Batch, Precision, Samples
from smpler.training.evaluator import Evaluator
from smpler.training.options import DataOptions, EvaluationOptions, ModelOptions
from smpler.training.waiting.waits import end_with_parent
from smpler.utils.paths import display

log = logging.getLogger(__name__)


def build_model(options: ModelOptions, protocol: Protocol) -> tuple[SMPLer, tuple[str, ...]]:
    """Return the model, and its lineage: where its weights come from, the latest origin first.

    The weights are the checkpoint's, else the backbone's published ones, else initial.
    """
    checkpoint = read_checkpoint(options.load_checkpoint) if options.load_checkpoint else None
    body = protocol_body(protocol.name, protocol.regressor, checkpoint)
    model = build_smpler(options.config, body)
    if checkpoint:
        absent = load_weights(model, checkpoint, stage_1_may_start=options.stage_1_may_start)
        if absent:
            log.info("%s starts the backbone; the blocks are new.", checkpoint.source)
        if checkpoint.body_sha256 not in (None, body.sha256):
            log.warning(
                "%s was trained on another body than %r: its shapes mean something else here.",
                checkpoint.source,
                body.name,
            )
        return model, (checkpoint.source, *filter(None, [checkpoint.start]))
    backbone = options.config.backbone
    path = BACKBONES[backbone].weights_file
    if path.is_file():
        load_backbone(model.backbone, path)
        log.info("Backbone: %s.", display(path))
        return model, ("initial parameters", f"backbone of {path.name}")
    name = "HRNet" if backbone.startswith("hrnet") else backbone
    log.info("Backbone: %s from initialisation; %s is not there.", name, display(path))
    return model, ("initial parameters", f"{name} from initialisation")


def prepare_model(model: SMPLer, options: ModelOptions, device: torch.device) -> SMPLer:
    """Return the model on the device, set up to compute as the options say.

    Raises:
        ValueError: the backbone cannot do it.
    """
    model = model.to(device)
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if options.recompute and not hasattr(model.backbone, "recompute"):
        raise ValueError(
            f"--recompute saves what batch normalisation needs, and {model.config.backbone} has "
            "none; leave it out."
        )
    model.backbone.recompute = options.recompute
    if options.compile:
        for part in (model.backbone, *model.blocks):
            part.compile()
    return model


def build_evaluator(
    options: EvaluationOptions,
    protocol: Protocol,
    model: SMPLer,
    lineage: tuple[str, ...],
    processes: Processes,
    required: bool,
) -> Evaluator | None:
    """Return what measures the model; None when the evaluation set is missing.

    Raises:
        FileNotFoundError: a required evaluation set, or a body that the gendered metrics need, is
            not there.
        ValueError: the evaluation set is empty.
    """
    try:
        dataset = evaluation_set(protocol, model.smpl.body)
    except FileNotFoundError as error:
        if required:
            raise
        log.info("No evaluation between epochs: %s", error)
        return None
    return Evaluator(
        dataset=dataset,
        protocol=protocol.to_dict(),
        processes=processes,
        precision=Precision(processes.device, options.bf16),
        batch_size=options.val_batch_size,
        num_workers=options.num_workers,
        gendered_body=gendered_layer(model) if options.gendered else None,
        flip_test=options.flip_test,
        setting={"weights": lineage[0], "start": " < ".join(lineage[1:])},
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


def build_training_set(
    options: DataOptions, body: Body, batch_size: int, seed: int, processes: Processes
) -> Samples:
    """Return the protocol's training set.

    Raises:
        FileNotFoundError: the data is not there.
        ValueError: it does not fill a batch.
    """
    dataset = training_set(
        options.protocol,
        body,
        seed=seed,
        on_bad_sample=options.on_bad_sample,
        epoch_samples=options.cache_features or options.epoch_samples,
        open_data=options.open_data,
        amass=options.amass,
    )
    TrainSampler(len(dataset), batch_size, processes, seed)  # raises when it is too small
    return dataset


def device_loader(
    options: DataOptions, dataset: Samples, num_workers: int, seed: int, processes: Processes
) -> Callable[[Iterable[list[int]]], Iterable[Batch]] | None:
    """Return what renders the training set's batches on the GPU; None without GPU or rendering.

    Raises:
        ValueError: `fresh` is below 1, and no GPU renders.
    """
    if not hasattr(dataset, "stream") or processes.device.type != "cuda":
        if options.fresh < 1:
            raise ValueError("--fresh below 1 is for people rendered on a GPU; there is none.")
        return None
    from smpler.datasets.engine.replay import DeviceBatches  # here, for it imports scipy

    return DeviceBatches(
        dataset,
        processes.device,
        num_workers,
        options.fresh,
        options.pool,
        seed=seed + processes.rank,
        worker_init_fn=end_with_parent,
    )
