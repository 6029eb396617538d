from tests import quick_checks  # noqa: F401  before the modules that are checked

# isort: split

import numpy as np
import pytest

from smpler.models.body import Body, body_from_arrays
from smpler.utils.joints import SMPL_NAMES
from tests.support import standin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that are marked `first` before all others: so both workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(scope="session")
def standin_arrays() -> dict[str, np.ndarray]:
    return standin.body()


@pytest.fixture(scope="session")
def standin_body(standin_arrays) -> Body:
    body = body_from_arrays(standin_arrays, name="stand-in")
    return body.with_h36m_regressor(standin.keypoint_regressor("h36m"))


def tiny_arrays(num_vertices: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """A random body of a few vertices, for loops and numerical gradients."""
    rng = np.random.default_rng(seed)
    num_joints = len(SMPL_NAMES)
    weights = rng.random((num_vertices, num_joints)) ** 4
    J_regressor = rng.random((num_joints, num_vertices))
    return {
        "v_template": rng.normal(0, 0.5, (num_vertices, 3)),
        "shapedirs": rng.normal(0, 0.05, (num_vertices, 3, 10)),
        "posedirs": rng.normal(0, 0.01, (num_vertices, 3, 207)),
        "J_regressor": J_regressor / J_regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, num_vertices, (30, 3)),
    }


@pytest.fixture
def tiny_body() -> Body:
    rng = np.random.default_rng(1)
    regressor = rng.random((17, 20))
    body = body_from_arrays(tiny_arrays(), name="tiny")
    return body.with_h36m_regressor(regressor / regressor.sum(1, keepdims=True))
