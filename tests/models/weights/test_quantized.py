import pytest
import torch
from safetensors.torch import save_file

from smpler.models.weights.quantized import (
    MIN_QUANTIZED,
    SCALE_PREFIX,
    dequantize,
    quantize,
    read_quantized,
    write_quantized,
)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 10 ** torch.randn(1, generator=generator)

    weight = draw(40, 30, 3, 3)
    weight[7] = 0  # a dead channel must not become NaN
    weight[8] *= 1e-6  # and a small one keeps its own precision
    return {
        "conv.weight": weight,
        "position": draw(1, 64, 10, 10),
        "norm.weight": draw(5000),
        "head.weight": draw(6, 128),
        "norm.num_batches_tracked": torch.tensor(17),
    }


def test_every_channel_comes_back_within_half_a_step(state, tmp_path):
    write_quantized(tmp_path / "w.safetensors", state, {"config": {"a": 1}})
    content = read_quantized(tmp_path / "w.safetensors")
    assert content["config"] == {"a": 1} and content["model"].keys() == state.keys()
    for name, axis in (("conv.weight", 0), ("position", 1)):
        error = (content["model"][name] - state[name]).abs().transpose(0, axis).flatten(1)
        largest = state[name].abs().transpose(0, axis).flatten(1).amax(1)
        excess = (error.amax(1) - largest / 254 * (1 + 1e-5)).max().item()
        assert excess <= 0, (name, excess)
        assert error.max() > 0, f"{name} was not rounded at all"
    for name in ("norm.weight", "head.weight", "norm.num_batches_tracked"):
        assert torch.equal(content["model"][name], state[name]), name


def test_large_tensors_take_one_byte_an_entry_and_one_scale_a_channel(state):
    tensors = quantize(state)
    assert tensors["conv.weight"].dtype == torch.int8
    assert tensors[SCALE_PREFIX + "conv.weight"].shape == (40, 1, 1, 1)
    assert tensors[SCALE_PREFIX + "position"].shape == (1, 64, 1, 1)
    assert state["head.weight"].numel() < MIN_QUANTIZED
    assert SCALE_PREFIX + "head.weight" not in tensors


def test_rounding_a_second_time_changes_nothing(state, tmp_path):
    once = write_and_read(state, tmp_path / "a.safetensors")
    twice = write_and_read(once, tmp_path / "b.safetensors")
    for name, value in once.items():
        assert torch.allclose(value, twice[name], rtol=1e-6, atol=0), name


def write_and_read(state, path):
    write_quantized(path, state, {})
    return read_quantized(path)["model"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_one_sentence(damage, state, tmp_path):
    path = tmp_path / "w.safetensors"
    write_quantized(path, state, {})
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    content = {"cut": content[:-10], "flipped": content, "empty": b"", "text": b"no weights"}[
        damage
    ]
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="w.safetensors is (not a readable|damaged)") as caught:
        read_quantized(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_safetensors_file_is_refused_by_name(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors says 'nothing'.*smpler-weights/1"):
        read_quantized(tmp_path / "other.safetensors")


@pytest.mark.parametrize("word", [b"abc", b"num_blocks", b"sha256", b"about"])
def test_a_flipped_bit_in_what_a_file_says_of_itself_is_found(word, state, tmp_path):
    path = tmp_path / "w.safetensors"
    write_quantized(path, state, {"config": {"num_blocks": 3}, "body": {"sha256": "abc"}})
    content, whole = bytearray(path.read_bytes()), read_quantized(path)
    content[content.index(word)] ^= 1
    path.write_bytes(content)
    try:
        found = read_quantized(path)
    except ValueError as error:
        assert "w.safetensors is damaged" in str(error)
    else:  # the name of the hash was hit, which says nothing
        assert word in (b"sha256", b"about")
        assert (found["config"], found["body"]) == (whole["config"], whole["body"])


def test_weights_whose_scales_do_not_fit_are_refused():
    tensors = {"a": torch.ones(1, 10**5), "scale:a": torch.ones(10**5, 1)}
    with pytest.raises(ValueError, match="a has scales that do not fit it"):
        dequantize(tensors)
