import numpy as np
import pytest
import torch

from smpler.models.weights.files import read_tensors
from smpler.training.checkpoint import load_checkpoint, save_atomically
from tests.training.disk import full_disk


def content() -> dict:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 300, generator=generator)
    return {"model": {"a": weight, "b": torch.zeros(())}, "seed": 7, "betas": (0.9, 0.999)}


def test_a_checkpoint_comes_back_and_other_readers_read_it(tmp_path):
    path = tmp_path / "last.pt"
    save_atomically(content(), path)
    for read in (load_checkpoint, read_tensors, lambda path: torch.load(path, weights_only=True)):
        found = read(path)
        assert found["model"]["a"].equal(content()["model"]["a"])
        assert (found["seed"], found["betas"]) == (7, (0.9, 0.999))


@pytest.mark.parametrize("read", [load_checkpoint, read_tensors])
def test_every_flipped_bit_is_found(read, tmp_path):
    path = tmp_path / "last.pt"
    save_atomically(content(), path)
    whole = path.read_bytes()
    places = np.random.default_rng(0).integers(len(whole) - 64, size=60)
    for place in [*places.tolist(), len(whole) - 1]:
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << place % 8
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match=r"last\.pt is (damaged|not a readable checkpoint)"):
            read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_without_a_hash_load_as_they_are(zipped, tmp_path):
    path = tmp_path / "published.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    assert read_tensors(path)["seed"] == load_checkpoint(path)["seed"] == 7


def test_a_full_disk_leaves_the_older_checkpoint_and_names_it(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"older")
    with full_disk(100_000), pytest.raises(OSError, match=r"last\.pt could not be written"):
        save_atomically(content(), path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]
