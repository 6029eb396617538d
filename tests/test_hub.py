import warnings

import numpy as np
import pytest
import torch

from smpler.models.smpler import PRESETS
from smpler.utils.paths import ROOT, SAMPLES
from tests.support import standin


def load(name: str, **arguments):
    return torch.hub.load(str(ROOT), name, source="local", **arguments)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("smpler", 4),
        ("smpler_l", 4),
        ("smpler_lite", 4),
        ("smpler_blaze", 4),
        ("smpler_backbone", 1),
        ("smpler_l_backbone", 1),
        ("smpler_lite_backbone", 1),
        ("smpler_blaze_backbone", 1),
    ],
)
def test_every_entry_gives_a_model_in_eval_mode_that_answers_in_stages(name, stages):
    model = load(name, checkpoint="init")
    assert not model.training
    with torch.no_grad():
        estimates = model(torch.rand(1, 3, 224, 224), all_stages=True)
    assert len(estimates) == stages
    assert all(estimate.vertices is not None for estimate in estimates)


def test_an_entry_without_trained_weights_names_those_that_have_them():
    with pytest.raises(ValueError) as caught:
        load("smpler")
    message = str(caught.value)
    assert "the trained entries are predictor, smpler_blaze_backbone." in message, message
    assert "checkpoint='init'" in message


def test_the_entry_with_open_weights_needs_nothing_else():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load("smpler_blaze_backbone")
    assert model.config == PRESETS["smpler-blaze-backbone"]


def test_predictor_goes_from_a_photo_to_people():
    (person,) = load("predictor", device="cpu")(SAMPLES / "im01.png")
    assert person.vertices.shape == (13718, 3)


def test_checkpoint_body_and_regressor_may_be_given_as_arrays(standin_arrays):
    model = load(
        "smpler_backbone",
        checkpoint=standin.published_state_dict("backbone", "w32"),
        body=standin_arrays,
        regressor=standin.keypoint_regressor("3dpw"),
    )
    assert model.smpl.num_vertices == standin.NUM_VERTICES
    error = np.abs(model.smpl.body.h36m_regressor - standin.keypoint_regressor("3dpw")).max()
    assert error < 1e-7, error


def test_body_is_the_layer_alone():
    layer = load("body")
    posed = layer(torch.zeros(2, 72), torch.zeros(2, 10))
    assert posed.vertices.shape == (2, layer.num_vertices, 3)
    assert posed.keypoints_3d.shape == (2, 14, 3)
