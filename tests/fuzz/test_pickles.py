"""Pickled bodies, as SMPL's files are."""

import pickle

import pytest
import scipy.sparse

from smpler.models.body import load_body
from smpler.utils.safe_pickle import read_array_pickle
from tests.fuzz.harness import EXAMPLES, Reader, check_by_examples
from tests.fuzz.test_arrays import body_arrays, body_is_finite


def bodies() -> list[bytes]:
    arrays = body_arrays()
    sparse = arrays | {"J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"])}
    return [pickle.dumps(arrays, 2), pickle.dumps(sparse, 2), pickle.dumps(sparse, 4)]


def values() -> list[bytes]:
    plain = {"a": [1, 2.5, "x", None, True], "b": {"c": (1, b"bytes")}, "d": 2**40}
    formats = ("csc", "csr", "coo", "lil", "bsr", "dia", "dok")
    dense = body_arrays()["weights"][:4, :6]
    matrices = {x: getattr(scipy.sparse, f"{x}_matrix")(dense) for x in formats}
    return [pickle.dumps(x, protocol) for protocol in range(6) for x in (plain, matrices)]


READERS = [
    Reader("body as pickle", ".pkl", bodies, load_body, body_is_finite),
    Reader("pickled values", ".pkl", values, read_array_pickle),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_pickles_give_arrays_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
