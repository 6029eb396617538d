"""Motion capture: AMASS's files, also those that we write of a clip."""

import numpy as np
import pytest

from smpler.datasets.engine.poses.amass import load_amass
from tests.fuzz.harness import EXAMPLES, Reader, are_finite, check_by_examples
from tests.fuzz.test_arrays import npz


def motions() -> list[bytes]:
    rng = np.random.default_rng(0)
    files = []
    for width, name in (
        (156, "mocap_framerate"),
        (165, "mocap_frame_rate"),
        (72, "mocap_framerate"),
    ):
        arrays = {"poses": rng.normal(0, 0.3, (9, width)), name: np.array(30.0)}
        files.append(
            npz(arrays | {"gender": np.array("male"), "betas": np.zeros(16)}, width == 165)
        )
    return files


READERS = [Reader("AMASS", ".npz", motions, load_amass, lambda x, _: are_finite(x))]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_motions_are_finite_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
