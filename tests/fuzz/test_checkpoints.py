"""Checkpoints: ours with a hash, torch's in both formats, released weights."""

import io

import pytest
import torch
from torch import nn

from smpler.models.weights.files import read_tensors
from smpler.models.weights.integrity import save_sealed
from smpler.models.weights.quantized import write_quantized
from smpler.training.checkpoint import load_checkpoint
from tests.fuzz.harness import EXAMPLES, Reader, check_by_examples, is_whole


def content(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 6)).sum().backward()
    optimizer.step()
    model.half()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random_states": [{"cpu": torch.get_rng_state()}],
        "config": {"backbone": "hrnet-w32", "dim": 128, "dropout": 0.1},
        "best": float("inf"),
        "step": seed,
    }


def sealed() -> list[bytes]:
    files = []
    for seed in (0, 1):
        file = io.BytesIO()
        save_sealed_into(content(seed), file)
        files.append(file.getvalue())
    return files


def save_sealed_into(values: dict, file: io.BytesIO) -> None:
    """`save_sealed` maps a real file."""
    import tempfile

    with tempfile.TemporaryFile() as real:
        save_sealed(values, real)
        real.seek(0)
        file.write(real.read())


def saved(zipped: bool) -> list[bytes]:
    files = []
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(content(), file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return files


def released() -> list[bytes]:
    import tempfile
    from pathlib import Path

    state = {"a": torch.randn(40, 40), "b": torch.randn(5)}
    about = {"config": {"backbone": "hrnet-w32", "dim": 128}, "body": {"sha256": "0" * 64}}
    with tempfile.TemporaryDirectory() as folder:
        write_quantized(Path(folder) / "x.safetensors", state, about)
        return [(Path(folder) / "x.safetensors").read_bytes()]


def tensors_are_dense(value, _) -> str | None:
    """Without checksums, numbers may be others; their count is that of the file."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list | tuple):
            stack += item
        elif isinstance(item, torch.Tensor) and item.numel() > 2**24:
            return f"a tensor has the shape {tuple(item.shape)}"
    return None


READERS = [
    Reader("our checkpoint", ".pt", sealed, load_checkpoint, is_whole),
    Reader("torch's zip format", ".pt", lambda: saved(True), read_tensors, is_whole),
    Reader("torch's old format", ".pth", lambda: saved(False), read_tensors, tensors_are_dense),
    Reader("released weights", ".safetensors", released, read_tensors, is_whole),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_checkpoints_give_what_was_written_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
