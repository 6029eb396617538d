"""The data that a protocol trains on and is evaluated on: TSV files, or people rendered on demand.

Samples depend on seed, epoch and index alone, whether they are read or rendered.
"""

from pathlib import Path

from torch.utils.data import Dataset

from smpler.datasets import RENDERED, Protocol
from smpler.datasets.human_mesh import HumanMesh
from smpler.utils.paths import datasets_root, display


def training_set(
    protocol: Protocol,
    body,
    seed: int,
    on_bad_sample: str = "raise",
    epoch_samples: int = 20_000,
    open_data: Path | None = None,
    amass: Path | None = None,
) -> Dataset:
    """Return the training samples of a protocol; their `set_epoch(epoch)` draws anew.

    Args:
        body: the `smpler.models.body.Body` that is rendered.
        seed: of augmentation and rendering.
        on_bad_sample: `raise` or `skip`: what to do with rows of files that cannot be used.
        epoch_samples: how many people are rendered in an epoch.
        open_data: folder that `scripts.render_dataset` wrote, to read instead of rendering.
        amass: AMASS file or folder; half of the rendered poses come from it.

    Raises:
        FileNotFoundError: the data is not there.
    """
    if protocol.train is None and open_data is None:
        # Imported here: they import scipy, which takes a second that only rendering needs.
        from smpler.datasets.engine.poses.sampler import PoseSampler
        from smpler.datasets.engine.stream import SyntheticPeople

        stream = SyntheticPeople(body, poses=PoseSampler(amass), seed=seed)
        return stream.first(epoch_samples)
    path = datasets_root() / protocol.train if protocol.train else open_data / "train.yaml"
    if protocol.train is None and not path.is_file():
        raise FileNotFoundError(
            f"{display(path)} is missing; write it by `python -m scripts.render_dataset --out "
            f"{display(open_data)} --num 20000`."
        )
    return HumanMesh(path, training=True, seed=seed, on_bad_sample=on_bad_sample)


def evaluation_set(protocol: Protocol, body) -> Dataset:
    """Return the samples that a protocol is evaluated on.

    Raises:
        FileNotFoundError: the data is not there.
        ValueError: there is no sample in it.
    """
    if protocol.evaluate is None:
        from smpler.datasets.engine.poses.sampler import PoseSampler
        from smpler.datasets.engine.stream import validation_set

        return validation_set(body, poses=PoseSampler(version=RENDERED[protocol.name]))
    path = datasets_root() / protocol.evaluate
    dataset = HumanMesh(path, training=False)
    if not len(dataset):
        raise ValueError(f"{display(path)} holds no sample to evaluate on: its linelist is empty.")
    return dataset
