import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from smpler.models import body as body_module
from smpler.models.body import (
    body_from_arrays,
    default_body,
    load_body,
    mean_parameters,
    open_body,
)
from smpler.utils.joints import SMPL_PARENTS
from tests.conftest import tiny_arrays


class FakeChumpy:
    """Makes modules that pickle like chumpy's, then takes them away again."""

    def __enter__(self):
        self.modules = {}
        for module_name, class_name in (("ch", "Ch"), ("reordering", "Select")):
            full_name = f"chumpy.{module_name}"
            fake = type(class_name, (), {"__module__": full_name})
            module = types.ModuleType(full_name)
            setattr(module, class_name, fake)
            self.modules[full_name] = module
        self.modules["chumpy"] = types.ModuleType("chumpy")
        sys.modules.update(self.modules)
        return self

    def __exit__(self, *_):
        for name in self.modules:
            del sys.modules[name]

    def ch(self, array: np.ndarray):
        value = self.modules["chumpy.ch"].Ch()
        value.__dict__.update(x=array, _dirty_vars=set(), _itr=None)
        return value

    def select(self, array: np.ndarray):
        """Every entry of a reversed copy, picked so that the array comes out."""
        value = self.modules["chumpy.reordering"].Select()
        backwards = self.ch(array.ravel()[::-1].copy())
        value.__dict__.update(
            a=backwards, idxs=np.arange(array.size)[::-1], preferred_shape=array.shape
        )
        return value


def smpl_layout(num_betas: int = 10) -> dict[str, np.ndarray]:
    arrays = tiny_arrays()
    rng = np.random.default_rng(5)
    arrays["shapedirs"] = rng.normal(0, 0.05, (20, 3, num_betas))
    kintree_table = np.stack([np.array(SMPL_PARENTS), np.arange(24)])
    kintree_table[0, 0] = 4294967295
    return arrays | {"kintree_table": kintree_table.astype(np.uint32)}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_made_with_chumpy_and_scipy_loads_without_chumpy(protocol, tmp_path):
    arrays = smpl_layout()
    with FakeChumpy() as chumpy:
        content = arrays | {
            "v_template": chumpy.ch(arrays["v_template"]),
            "shapedirs": chumpy.select(arrays["shapedirs"]),
            "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
        (tmp_path / "smpl.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert "chumpy" not in sys.modules
    body = load_body(tmp_path / "smpl.pkl")
    for ours, theirs in (
        ("v_template", "v_template"),
        ("shapedirs", "shapedirs"),
        ("J_regressor", "J_regressor"),
        ("lbs_weights", "weights"),
    ):
        error = np.abs(getattr(body, ours) - arrays[theirs]).max()
        assert error < 1e-6, (ours, error)
    assert np.array_equal(body.faces, arrays["f"])


def test_a_pickle_from_python_2_and_an_old_scipy_loads(tmp_path):
    """Python 2 wrote byte strings, and scipy's class lived in `scipy.sparse.csc`."""
    arrays = smpl_layout()
    sparse = scipy.sparse.csc_matrix(arrays["J_regressor"])
    old_class = type("csc_matrix", (), {"__module__": "scipy.sparse.csc"})
    old = old_class()
    old.__dict__.update(
        data=sparse.data, indices=sparse.indices, indptr=sparse.indptr, _shape=sparse.shape
    )
    module = types.ModuleType("scipy.sparse.csc")
    module.csc_matrix = old_class
    before = sys.modules.get("scipy.sparse.csc")
    sys.modules["scipy.sparse.csc"] = module
    try:
        data = pickle.dumps(arrays | {"J_regressor": old}, protocol=2)
    finally:
        del sys.modules["scipy.sparse.csc"]
        if before is not None:
            sys.modules["scipy.sparse.csc"] = before
    (tmp_path / "old.pkl").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    error = np.abs(load_body(tmp_path / "old.pkl").J_regressor - arrays["J_regressor"]).max()
    assert error < 1e-6, error


class Payload:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        Payload(os.system, "touch /tmp/smpler-body-payload"),
        Payload(eval, "open('/tmp/smpler-body-payload', 'w')"),
        Payload(getattr, os, "system"),
        Payload(np.load, "/etc/passwd"),
        Payload(io.open, "/tmp/smpler-body-payload", "w"),
        Payload(scipy.sparse.eye, 3),
    ],
    ids=lambda payload: payload.call[0].__name__,
)
def test_a_pickle_that_calls_anything_is_refused_in_one_sentence(payload, tmp_path):
    try:
        data = pickle.dumps(smpl_layout() | {"v_template": payload})
    except (TypeError, pickle.PicklingError):
        data = pickle.dumps(smpl_layout() | {"v_template": Payload(eval, "1")})
    (tmp_path / "evil.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"evil\.pkl was not read: it asks for") as caught:
        load_body(tmp_path / "evil.pkl")
    assert "\n" not in str(caught.value)
    assert not os.path.exists("/tmp/smpler-body-payload")


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
@pytest.mark.parametrize("content", [b"", b"not a body", pickle.dumps([1, 2])[:-2]])
def test_broken_files_give_one_sentence(suffix, content, tmp_path):
    path = tmp_path / f"body{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="body") as caught:
        load_body(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.npz is missing"):
        load_body("nowhere.npz")


def test_npz_of_more_betas_than_ten_is_cut(tmp_path):
    arrays = smpl_layout(num_betas=300)
    np.savez(tmp_path / "smpl.npz", **arrays)
    body = load_body(tmp_path / "smpl.npz")
    assert np.allclose(body.shapedirs, arrays["shapedirs"][..., :10])


def test_npz_with_objects_inside_is_refused(tmp_path):
    arrays = smpl_layout() | {"v_template": np.array([{}], dtype=object)}
    np.savez(tmp_path / "objects.npz", **arrays)
    with pytest.raises(ValueError, match="objects.npz"):
        load_body(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("posedirs", None, "no field 'posedirs'"),
        ("posedirs", np.zeros((20, 3, 486)), r"'posedirs' of shape \(20, 3, 486\).*not SMPL-H"),
        ("weights", np.zeros((20, 55)), r"'weights' of shape \(20, 55\)"),
        ("shapedirs", np.zeros((20, 3, 9)), r"'shapedirs' of shape \(20, 3, 9\)"),
        (
            "v_template",
            np.full((20, 3), np.nan),
            "'v_template' of the body 'odd' has a value that is not finite",
        ),
        ("f", np.array([[0, 1, 20]]), "names vertex 20 of 20"),
        ("kintree_table", np.zeros((2, 24), int), "kinematic tree other than SMPL's"),
    ],
)
def test_what_does_not_fit_smpl_is_named(field, value, message):
    arrays = smpl_layout()
    if value is None:
        del arrays[field]
    else:
        arrays[field] = value
    with pytest.raises(ValueError, match=message):
        body_from_arrays(arrays, name="odd")


def test_identity_depends_on_the_numbers_not_on_the_file():
    first = body_from_arrays(smpl_layout(), name="a")
    same = body_from_arrays(smpl_layout(), name="b")
    other = body_from_arrays(smpl_layout() | {"v_template": np.ones((20, 3))}, name="a")
    assert first.sha256 == same.sha256 != other.sha256


def test_default_body_is_the_open_one_until_smpl_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(body_module, "SMPL_FILES", (tmp_path / "SMPL_NEUTRAL.pkl",))
    monkeypatch.setattr(body_module, "H36M_REGRESSOR", tmp_path / "J.npy")
    assert default_body().name == "open"
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(smpl_layout()))
    np.save(tmp_path / "J.npy", np.full((17, 20), 0.05))
    body = default_body()
    assert body.name == "smpl" and body.h36m_regressor.shape == (17, 20)


def test_mean_parameters_face_the_camera_upright(tiny_body):
    for body in (open_body(), tiny_body):
        pose, betas = mean_parameters(body)
        root = pose.reshape(24, 3, 2)[0]
        # half a turn about x: x stays, y turns down
        assert np.allclose(root, [[1, 0], [0, -1], [0, 0]], atol=0.2), root
        assert np.array_equal(betas, np.zeros(10))


def test_smpls_own_mean_is_used_when_it_is_there(tmp_path, monkeypatch, tiny_body):
    rng = np.random.default_rng(0)
    pose, shape = rng.normal(size=144), rng.normal(size=10)
    np.savez(tmp_path / "mean.npz", pose=pose, shape=shape, cam=np.ones(3))
    monkeypatch.setattr(body_module, "MEAN_PARAMS", tmp_path / "mean.npz")
    found = mean_parameters(tiny_body)
    assert np.allclose(found[0], pose) and np.allclose(found[1], shape)
    assert np.allclose(mean_parameters(open_body())[1], 0)
