import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch

from smpler.models.weights import checkpoint
from smpler.models.weights.checkpoint import load_model, read_checkpoint
from smpler.models.weights.files import bare_names, check_finite, read_tensors, weights_of
from smpler.models.weights.torch_files import MAGIC, VERSION
from tests.fuzz.harness import is_same

ADVICE = "weights_only", "trust the source", "torch.load", "Traceback"


def everything() -> dict:
    """Return what a training keeps, and tensors of every kind."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    x = torch.randn(3, 4)
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "parts": [x.t(), x[1:], x[:, 2], torch.zeros(1).expand(5), torch.zeros(0, 3)],
        "kinds": [x.half(), x.bfloat16(), x.double(), x.long(), x.char(), x > 0],
        "scalar": torch.tensor(3.0),
        "plain": [None, float("inf"), 2**40, (1, "text"), {"a": True}],
        "random_states": [{"cpu": torch.get_rng_state()}],
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_values_come_back_as_torch_reads_them(zipped, protocol, tmp_path):
    path, options = tmp_path / "x.pt", {"_use_new_zipfile_serialization": zipped}
    torch.save(everything(), path, pickle_protocol=protocol, **options)
    found = read_tensors(path)
    views = torch.load(path, weights_only=False)  # its other way reads protocol 2 only
    for name, value in everything().items():
        if name == "kinds":
            pairs = zip(found[name], views[name], strict=True)
            assert all(a.dtype == b.dtype and a.equal(b) for a, b in pairs)
        else:
            assert is_same(found[name], value), name
    assert is_same(found["parts"], views["parts"])


def test_shared_numbers_are_read_once(tmp_path):
    x = torch.randn(100)
    torch.save({"a": x, "b": x[:50]}, tmp_path / "x.pt")
    found = read_tensors(tmp_path / "x.pt")
    found["a"][0] = 7
    assert found["b"][0] == 7


class Unknown:
    """Stands for a trainer's own class, as Lightning's files hold under `hyper_parameters`."""

    def __init__(self):
        self.rate = 1


def test_entries_of_unknown_kinds_are_left_out_beside_weights(tmp_path):
    content = {"state_dict": {"a": torch.ones(2)}, "hyper_parameters": Unknown(), "epoch": 3}
    torch.save(content, tmp_path / "x.ckpt")
    found = read_tensors(tmp_path / "x.ckpt")
    assert found.keys() == {"state_dict", "epoch"} and found["state_dict"]["a"].sum() == 2
    torch.save({"state_dict": {"a": Unknown()}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="x.ckpt is not a readable checkpoint: it holds an object"):
        read_tensors(tmp_path / "x.ckpt")


def test_a_flipped_bit_in_anybodys_zip_file_is_found(tmp_path):
    path = tmp_path / "published.pth"
    torch.save({"a": torch.randn(100, 100)}, path)
    whole = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(5000, 40_000, size=20).tolist():
        spoiled = whole.copy()
        spoiled[place] ^= 1 << place % 8
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="published.pth is not a readable checkpoint"):
            read_tensors(path)


def old_format(program: bytes, keys: list[str], data: bytes = b"") -> bytes:
    system = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    start = b"".join(pickle.dumps(x, 2) for x in (MAGIC, VERSION, system))
    return start + program + pickle.dumps(keys, 2) + data


def tensor_program(count: int, shape: str, steps: str) -> bytes:
    """A pickle of {"a": tensor} in protocol 2, whose storage has so many numbers."""
    size = struct.pack("<i", count) if count < 2**31 else b""
    number = b"J" + size if size else b"\x8a\x08" + struct.pack("<q", count)
    return (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpu" + number + b"NtQK\x00" + shape.encode() + steps.encode() + b"\x89Ntos."
    ).replace(b"\x89Ntos.", b"\x89NtRs.")


BOMBS = {
    "allocates bytes": b"\x80\x02}U\x01ac__builtin__\nbytearray\n(L20000000000L\ntRs.",
    "allocates a storage": b"\x80\x02}U\x01actorch\nFloatStorage\n(L20000000000L\ntRs.",
    "names a huge storage": tensor_program(2**40, "(I1099511627776\nt", "(I1\nt"),
    "repeats a number": tensor_program(1, "(I20000000000\nt", "(I0\nt"),
    "lies outside": tensor_program(1, "(I5\nt", "(I1\nt"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_one_sentence_in_little_memory(name, tmp_path):
    path = tmp_path / "bomb.pt"
    path.write_bytes(old_format(BOMBS[name], ["0"], struct.pack("<qf", 1, 0.0)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        content = read_tensors(path)
        assert content == {}, "it is left out"
    except ValueError as error:
        assert "bomb.pt" in str(error) and "\n" not in str(error)
        assert not any(word in str(error) for word in ADVICE), error
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < 100_000, f"{used} kB"


def test_an_archive_whose_tensors_are_all_one_part_of_it_is_refused(tmp_path):
    """Each of a thousand tensors is the same megabyte of the file."""
    torch.save({str(n): torch.full((1000,), float(n)) for n in range(40)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        first = next(x for x in archive.infolist() if x.filename.endswith("data/0"))
        for info in archive.infolist():
            if "/data/" in info.filename:
                info.header_offset = first.header_offset
        listing = [info for info in archive.infolist()]
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as other:
            for info in listing:
                data = b"" if info is not first and "/data/" in info.filename else None
                content = archive.open(info).read() if data is None else data
                other.writestr(info.filename, content)
    with pytest.raises(ValueError, match="y.pt is not a readable checkpoint: it is damaged"):
        read_tensors(tmp_path / "y.pt")


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"", b"\x80", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", bytes(range(256))],
    ids=["text", "empty", "one byte", "empty archive", "npy", "bytes"],
)
def test_other_files_are_one_sentence_of_ours(content, tmp_path):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match="file.pt is not a readable checkpoint") as caught:
        read_tensors(tmp_path / "file.pt")
    said = str(caught.value)
    assert "\n" not in said and not any(word in said for word in ADVICE), said


WRAPPERS = ["module.", "model.", "_orig_mod."]


@pytest.mark.parametrize("first", WRAPPERS)
@pytest.mark.parametrize("second", WRAPPERS)
@pytest.mark.parametrize("third", ["", *WRAPPERS])
def test_weights_are_found_behind_every_wrapper_in_any_order(first, second, third):
    state = {"backbone.conv.weight": torch.ones(2), "blocks.0.units.1.module": torch.zeros(1)}
    wrapped = {first + second + third + name: value for name, value in state.items()}
    for content in (wrapped, {"state_dict": wrapped, "epoch": 1}, {"model": wrapped}):
        found = weights_of(content, "x.pt")
        assert found.keys() == state.keys()


def test_a_compiled_part_of_a_model_is_read_and_two_of_one_name_are_refused():
    tensors = {"backbone._orig_mod.conv.weight": torch.ones(1)}
    assert bare_names(tensors, "x.pt").keys() == {"backbone.conv.weight"}
    with pytest.raises(ValueError, match="x.pt holds 'a' twice"):
        bare_names({"a": torch.ones(1), "module.a": torch.ones(1)}, "x.pt")


def test_weights_that_are_not_finite_are_no_model_to_use(monkeypatch, tiny_body):
    monkeypatch.setattr(checkpoint, "build_smpler", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(checkpoint, "load_weights", lambda *_: ())
    config = {"backbone": "hrnet-w32", "num_blocks": 0}
    for value in (float("nan"), float("-inf"), 1e39):
        state = {"ok": torch.ones(3), "spoiled": torch.tensor([1.0, value], dtype=torch.float64)}
        with pytest.raises(ValueError, match="state dict cannot be used: spoiled has a value that"):
            load_model(None, {"model": state, "config": config}, tiny_body)
    check_finite({"large": torch.tensor([3e38, 3e38])})  # whose sum is not finite


@pytest.mark.parametrize("num_blocks", [10**6, "3", 2.5, None])
def test_a_configuration_that_the_tensors_contradict_is_refused_at_once(num_blocks):
    state = {"backbone.a": torch.ones(1), "blocks.0.a": torch.ones(1)}
    config = {"backbone": "hrnet-w32", "num_blocks": num_blocks}
    with pytest.raises(ValueError, match="state dict (says that it has|has a configuration of)"):
        read_checkpoint({"model": state, "config": config})
