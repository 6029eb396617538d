"""JSON, yaml and the tables of a data set."""

import json
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from smpler.datasets.tsv import TsvDataset, TsvWriter
from smpler.utils.files.text import read_json
from smpler.utils.files.yaml_text import read_yaml
from tests.fuzz.harness import EXAMPLES, Reader, check_by_examples
from tests.support.tsv_data import jpeg, person_label, smooth_image

LABEL = {"center": [10.5, 2], "has_smpl": 1, "names": ["a", "b\u00e9"], "deep": {"x": [[1], None]}}
CONFIG = b"img: a.tsv\nlabel: [b.tsv, 'c.tsv']\ncomposite: true\n"


TABLES = ("img.tsv", "label.tsv", "hw.tsv", "linelist.tsv", "img.lineidx", "label.lineidx")


@cache
def data_set() -> dict[str, bytes]:
    """Return the files of a small one by their places."""
    with tempfile.TemporaryDirectory() as folder:
        with TsvWriter(Path(folder) / "set.yaml") as writer:
            for number in range(3):
                image = jpeg(smooth_image(20, 30, number))
                label = person_label(np.random.default_rng(0))
                writer.add(f"image {number}", image, (20, 30), label)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def whole_table(ending: str) -> list[bytes]:
    return [content for name, content in data_set().items() if name.endswith(ending)]


def read_set(path: Path, ending: str) -> list:
    """Read all of a data set, one file of which is what is at PATH."""
    folder = path.parent / f"{path.name}_set"
    for other, content in data_set().items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(path.read_bytes() if other.endswith(ending) else content)
    try:
        data = TsvDataset(folder / "set.yaml")
        return [
            (data.key(i), data.image_bytes(i)[1], data.label(i), data.size(i))
            for i in range(len(data))
        ]
    except (ValueError, OSError) as error:
        said = str(error).replace("set.yaml_set", "")
        is_named = any(other.rpartition(".")[0] in said for other in data_set())
        raise ValueError(f"{path.name if is_named else 'no name'}: {said}") from error


READERS = [
    Reader("JSON", ".json", lambda: [json.dumps(LABEL).encode()], read_json),
    Reader("yaml", ".yaml", lambda: [CONFIG], read_yaml),
    *(
        Reader(
            f"data set: {name}",
            Path(name).suffix,
            partial(whole_table, name),
            partial(read_set, ending=name),
        )
        for name in ("set.yaml", *TABLES)
    ),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_texts_are_values_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
