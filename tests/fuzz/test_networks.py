"""Weights of small networks, poses and statistics of poses as npz."""

import json

import numpy as np
import pytest

from smpler.datasets.engine.poses.captured import NUM_NUMBERS, STATISTICS, CapturedPoses
from smpler.datasets.engine.poses.sampler import KEY_POSES, PoseSampler
from smpler.models.lifter import Lifter
from smpler.models.weights.files import read_arrays
from smpler.utils.files.arrays import read_numbers
from tests.fuzz.harness import EXAMPLES, Reader, are_finite, check_by_examples
from tests.fuzz.test_arrays import npz


def lifter() -> list[bytes]:
    state = Lifter(num_networks=2, width=4, num_blocks=1).state_dict()
    return [npz({name: value.numpy() for name, value in state.items()})]


def network() -> list[bytes]:
    rng = np.random.default_rng(0)
    arrays = {"a.weight": rng.integers(-127, 128, (6, 5)).astype(np.int8)}
    arrays |= {"scale:a.weight": rng.random((6, 1)).astype(np.float32), "a.bias": np.ones(6)}
    return [npz(arrays), npz(arrays, compressed=True)]


def statistics() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [
        npz(
            {
                "weight": np.array([0.5, 0.25, 0.25]),
                "floor": np.array([0, 0, 1]),
                "mean": rng.normal(size=(3, NUM_NUMBERS)).astype(np.float32),
                "rest": rng.random((3, NUM_NUMBERS)).astype(np.float32),
                "directions": rng.normal(size=(3, NUM_NUMBERS, 2)).astype(np.float32),
            }
        )
    ]


def read_statistics(path) -> np.ndarray:
    return CapturedPoses(path).draw(3, np.random.default_rng(0))


def read_table(path) -> np.ndarray:
    return read_numbers(path, {"a.bias": ("n",)})["a.bias"]


READERS = [
    Reader("lifter", ".npz", lifter, Lifter.load, lambda x, _: are_finite(x.offsets.numpy())),
    Reader(
        "network", ".npz", network, read_arrays,
        lambda x, _: are_finite(*(value.numpy() for value in x.values())),
    ),
    Reader("statistics of poses", ".npz", statistics, read_statistics, lambda x, _: are_finite(x)),
    Reader("numbers", ".npz", network, read_table, lambda x, _: are_finite(x)),
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_weights_are_those_that_were_written_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)


ODD = {
    "none": {},
    "no bias": {"networks.0.widen.bias": None},
    "no number": {"networks.1000000.widen.bias": np.ones(4)},
    "wide": {"networks.0.widen.bias": np.zeros(10**6, np.float32)},
    "nan": {"offsets": np.full((33, 3), np.nan)},
    "scales": {"scale:offsets": np.ones((1, 1, 9))},
}


@pytest.mark.parametrize("name", ODD)
def test_a_lifter_of_odd_arrays_is_refused_in_one_sentence(name, tmp_path):
    state = Lifter(num_networks=1, width=4, num_blocks=1).state_dict()
    arrays = {key: value.numpy() for key, value in state.items()} | ODD[name]
    arrays = {key: value for key, value in arrays.items() if value is not None and ODD[name]}
    (tmp_path / "lifter.npz").write_bytes(npz(arrays))
    with pytest.raises(ValueError, match=r"lifter\.npz") as caught:
        Lifter.load(tmp_path / "lifter.npz")
    assert "\n" not in str(caught.value) and json.dumps(str(caught.value))


DAMAGES = {
    "nan": ("mean", lambda x: np.where(x == x[0, 0], np.nan, x), "not finite"),
    "shape": ("rest", lambda x: x[:, :5], r"'rest' is of shape \(\d+, 5\), not \(k, \d+\)"),
    "texts": ("weight", lambda x: x.astype(str), "'weight' holds no numbers"),
    "objects": ("floor", lambda x: x.astype(object), "is no npz of arrays"),
    "negative": ("weight", lambda x: -x, "a weight or spread below 0"),
    "no floor": ("floor", lambda x: 0 * x, "has no poses on the floor"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_statistics_are_refused_in_one_sentence(name, tmp_path):
    field, damage, said = DAMAGES[name]
    with np.load(STATISTICS) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "s.npz", **arrays | {field: damage(arrays[field])})
    with pytest.raises(ValueError, match=f"s.npz .*{said}") as caught:
        CapturedPoses(tmp_path / "s.npz")
    assert "\n" not in str(caught.value)


def test_damaged_key_poses_are_refused_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "key_poses.npz").write_bytes(KEY_POSES.read_bytes()[:-300])
    place = "smpler.datasets.engine.poses.sampler.KEY_POSES"
    monkeypatch.setattr(place, tmp_path / "key_poses.npz")
    with pytest.raises(ValueError, match="key_poses.npz is no npz of arrays"):
        PoseSampler()
