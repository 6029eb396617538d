"""npz and npy files: arrays of anybody, bodies, results, regressors."""

import io
from dataclasses import fields

import numpy as np
import pytest

from smpler.apps.results import Person, read_person
from smpler.models.body import load_body, load_h36m_regressor
from smpler.models.smpl import SMPL
from smpler.utils.files.arrays import read_npz
from tests.conftest import tiny_arrays
from tests.fuzz.harness import EXAMPLES, Reader, are_finite, check_by_examples, is_same
from tests.support.results import person_arrays, track_arrays


def npz(arrays: dict, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def some_arrays() -> list[bytes]:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)), "b": np.arange(5), "name": np.array("text")}
    arrays |= {"columns": np.asfortranarray(rng.normal(size=(2, 3))), "none": np.zeros((0, 3))}
    return [npz(arrays), npz(arrays, compressed=True)]


def bodies() -> list[bytes]:
    return [npz(body_arrays(), compressed) for compressed in (False, True)]


def body_arrays() -> dict[str, np.ndarray]:
    """Of a person's size, with all that SMPL's files hold."""
    arrays = tiny_arrays()
    arrays["v_template"] *= 1.7 / np.ptp(arrays["v_template"], axis=0).max()
    arrays["f"] = arrays["f"].astype(np.uint32)
    return {name: x.astype(np.float32) if x.dtype == float else x for name, x in arrays.items()}


def results() -> list[bytes]:
    from smpler.models.body import body_from_arrays

    layer = SMPL(body_from_arrays(tiny_arrays(), name="tiny"))
    return [npz(person_arrays()), npz(track_arrays(layer, np.arange(3)), compressed=True)]


def arrays_are_as_written(found: dict, whole) -> str | None:
    """The archive's checksums protect each array; one may be missing."""
    for name, array in found.items():
        if not any(name in x and is_same(array, x[name]) for x in whole):
            return f"{name!r} is not what was written"
    return None


def body_is_finite(body, _) -> str | None:
    return are_finite(body.v_template, body.shapedirs, body.posedirs, body.lbs_weights)


def person_is_finite(person: Person, _) -> str | None:
    values = [getattr(person, field.name) for field in fields(person)]
    numbers = [x for x in values if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    return are_finite(*numbers, np.array([person.focal_length]))


READERS = [
    Reader("npz", ".npz", some_arrays, read_npz, arrays_are_as_written),
    Reader("body as npz", ".npz", bodies, load_body, body_is_finite),
    Reader("results", ".npz", results, read_person, person_is_finite),
    Reader("regressor as npy", ".npy", lambda: [npy(np.ones((17, 9)))], load_h36m_regressor),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_arrays_give_what_was_written_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
