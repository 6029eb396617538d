import pickle

import numpy as np
import pytest

from smpler.models.body import (
    OPEN_BODY,
    body_from_arrays,
    check_h36m_regressor,
    load_body,
    load_h36m_regressor,
)
from smpler.models.weights.files import read_arrays
from tests.conftest import tiny_arrays
from tests.utils.files.damage import damaged


def lengths_times(factor: float) -> dict[str, np.ndarray]:
    arrays = tiny_arrays()
    return {name: factor * arrays[name] for name in ("v_template", "shapedirs", "posedirs")}


def with_value(field: str, value: float) -> dict[str, np.ndarray]:
    array = tiny_arrays()[field]
    array[3, 2] = value
    return {field: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lengths_times(1000), "It seems to be in millimetres: divide .* by 1000"),
        (lengths_times(100), "It seems to be in centimetres: divide .* by 100"),
        (lengths_times(0.1), "where a person is 0.5 to 3 m. Give a body in metres"),
        (lengths_times(0), "is 0 m large at rest"),
        ({"posedirs": 1000 * tiny_arrays()["posedirs"]}, "in 'posedirs', where a person has"),
        (with_value("v_template", np.nan), "'v_template' of .* not finite in float32"),
        (with_value("shapedirs", np.inf), "'shapedirs' of .* not finite in float32"),
        (with_value("posedirs", 1e39), "'posedirs' of .* not finite in float32"),
        (with_value("J_regressor", -np.inf), "'J_regressor' of .* not finite in float32"),
        (with_value("weights", -0.5), "weights that are negative or do not sum to 1"),
        ({"weights": 2 * tiny_arrays()["weights"]}, "sums are 2 to 2"),
        ({"f": np.full((3, 3), np.nan)}, "a face that names vertex nan"),
        ({"v_template": np.array(3.0)}, r"'v_template' of shape \(\)"),
        ({"v_template": np.full((20, 3), "a")}, "'v_template' that does not hold numbers"),
        ({"kintree_table": np.array(3)}, "kinematic tree other than SMPL's"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_files_that_hold_no_person_in_metres_are_refused(tmp_path, suffix, changes, message):
    path, arrays = tmp_path / f"odd{suffix}", tiny_arrays() | changes
    if suffix == ".npz":
        np.savez(path, **arrays)
    elif arrays["v_template"].dtype.kind == "U":
        arrays["v_template"], message = [[0.0], [1.0, 2.0]], "holds other than arrays"
        path.write_bytes(pickle.dumps(arrays))
    else:
        path.write_bytes(pickle.dumps(arrays))
    with pytest.raises(ValueError, match=message) as caught:
        load_body(path)
    assert "odd" in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_that_somebody_made_may_be_of_any_size():
    assert body_from_arrays(tiny_arrays() | lengths_times(1000), "giant").num_vertices == 20


def test_a_regressor_that_is_not_finite_is_refused(tmp_path):
    for value in (np.nan, np.inf, 1e39):
        np.save(tmp_path / "J.npy", np.full((17, 20), value))
        with pytest.raises(ValueError, match="keypoint regressor has a value that is not finite"):
            check_h36m_regressor(load_h36m_regressor(tmp_path / "J.npy"), 20)
    np.save(tmp_path / "J.npy", np.full((17, 20), "a"))
    with pytest.raises(ValueError, match="does not hold numbers"):
        check_h36m_regressor(load_h36m_regressor(tmp_path / "J.npy"), 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lbs_weight": None}, "has no 'lbs_weight'"),
        ({"J_regressor_col": np.full(316, 60_000)}, "do not fit together"),
        ({"mean_pose": np.zeros(5)}, "do not fit together"),
        ({"mean_pose": np.full((24, 3), np.nan)}, "not finite"),
        ({"lbs_weight": np.zeros((13718, 4), np.float16)}, "not finite"),
        ({"posedirs": np.zeros((5, 3, 207))}, "'posedirs' of shape"),
    ],
)
def test_an_open_body_whose_arrays_do_not_fit_is_refused(tmp_path, changes, message):
    with np.load(OPEN_BODY) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "posedirs"}
    arrays["posedirs"] = np.broadcast_to(np.float16(0), (13718, 3, 207))
    changed = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez_compressed(tmp_path / "open.npz", **changed)
    with pytest.raises(ValueError, match=message):
        load_body(tmp_path / "open.npz")


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_damaged_body_is_a_body_or_one_sentence(tmp_path, suffix):
    """Beside what tests of the readers damage: here what was read must make a body."""
    path, arrays = tmp_path / f"some{suffix}", tiny_arrays(num_vertices=8)
    np.savez_compressed(path, **arrays) if suffix == ".npz" else path.write_bytes(
        pickle.dumps(arrays, protocol=2)
    )
    for content in damaged(path.read_bytes(), count=100, seed=3):
        path.write_bytes(content)
        try:
            assert load_body(path).num_vertices == 8
        except ValueError as error:
            assert "some" in str(error) and "\n" not in str(error), content


def test_weights_that_are_none_are_refused(tmp_path):
    for name, arrays in {
        "texts": {"w": np.array(["a"])},
        "scales": {"w": np.zeros((2, 3), np.int8), "scale:w": np.zeros((5, 1), np.float32)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match=f"{name}.npz holds no weights of a network"):
            read_arrays(tmp_path / f"{name}.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04cut off")
    with pytest.raises(ValueError, match="cut.npz is no npz of arrays"):
        read_arrays(tmp_path / "cut.npz")
