import json

import cv2
import numpy as np
import pytest

from benchmarks import data_diversity
from smpler.datasets.engine import stream as engine_stream
from smpler.models.body import open_body
from tests.support.standin_wardrobe import wardrobe


@pytest.fixture
def small_wardrobe(monkeypatch):
    clothes = wardrobe(open_body())
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: clothes)


def test_the_benchmark_finds_different_people_and_draws_them(small_wardrobe, tmp_path):
    picture, numbers = tmp_path / "plot.png", tmp_path / "numbers.json"
    flags = ["--num=60", "--images=4", "--num_workers=0"]
    assert data_diversity.main([*flags, f"--out={picture}", f"--json={numbers}"]) == 0
    result = json.loads(numbers.read_text())
    assert result["samples"] == 60 and result["images"] == 4
    assert result["labels that occur twice"] == result["pictures that occur twice"] == 0
    assert 1.4 < result["height [m]"]["p5"] < result["height [m]"]["p95"] < 2.1
    assert 15 < result["BMI [kg/m2]"]["median"] < 35
    assert cv2.imread(str(picture)).std() > 10


def test_repeated_labels_and_pictures_are_counted():
    rng = np.random.default_rng(0)
    drawn = {
        "pose": rng.normal(0, 0.3, (6, 24, 3)),
        "betas": rng.normal(size=(6, 10)),
        "camera": rng.normal(size=(6, 4)),
    }
    fresh = data_diversity.uniqueness(drawn, np.array(list("abcdef")))
    assert fresh["labels that occur twice"] == fresh["pictures that occur twice"] == 0
    for values in drawn.values():
        values[5] = values[2]
    found = data_diversity.uniqueness(drawn, np.array(list("abcdea")))
    assert found["labels that occur twice"] == found["pictures that occur twice"] == 1
    assert found["rms angle between the two most alike poses [degrees]"] < 0.1


def test_heights_and_masses_are_those_of_the_mesh():
    body = open_body()
    measured = data_diversity.measure(body, np.zeros((1, 10)))
    assert measured["height"][0] == pytest.approx(np.ptp(body.v_template[:, 1]), abs=1e-6)
    corners = body.v_template[body.faces].astype(np.float64)
    volume = np.linalg.det(corners).sum() / 6
    mass = measured["bmi"][0] * measured["height"][0] ** 2
    assert mass == pytest.approx(data_diversity.DENSITY * volume, rel=1e-4)
    assert 45 < mass < 90
