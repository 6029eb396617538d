"""METRO's TSV layout (Lin et al., CVPR 2021): a reader by sample number, and a writer.

A data set is a yaml file that names four tables:

- `img`: key TAB base64 of a JPEG (in the last column)
- `label`: key TAB JSON list with one dict, see `smpler.datasets.labels`
- `hw`: key TAB `[{"height": h, "width": w}]`, or `h w`
- `linelist`: the rows that belong to the set, one number a line

In a composite set (`composite: true`), the first three are lists of tables, and the linelist holds
`source TAB row`. Paths are absolute or relative to the yaml's folder.
"""

import base64
import binascii
import json
import os
from pathlib import Path

import numpy as np
import pybase64
import yaml

from smpler.datasets.tsv_file import (
    BadSampleError,
    TsvFile,
    is_cut_off,
    read_numbers,
    write_atomically,
)
from smpler.utils.paths import display

TABLES = ("img", "hw", "label", "linelist")


class TsvDataset:
    """The samples that a yaml names, in the order of its linelist.

    Args:
        path: the yaml file.

    Raises:
        FileNotFoundError: the yaml or one of its tables is missing.
        ValueError: the yaml or its linelist has another form.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        config = read_yaml(self.path)
        self.images = self._tables(config, "img")
        self.labels = self._tables(config, "label")
        self.sizes = self._tables(config, "hw") if config.get("hw") else []
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"{display(self.path)} names {len(self.images)} img and {len(self.labels)} label "
                "tables; each source needs one of both."
            )
        self.sources, self.rows = self._read_linelist(config)

    def __len__(self) -> int:
        return len(self.rows)

    def locate(self, index: int) -> tuple[int, int]:
        """Return source and row of a sample."""
        return int(self.sources[index]), int(self.rows[index])

    def key(self, index: int) -> str:
        """Return the sample's name: that of its row in the image table."""
        source, row = self.locate(index)
        return self.images[source].key(row)

    def image_bytes(self, index: int) -> tuple[str, bytes]:
        """Return key and encoded image of a sample.

        Raises:
            BadSampleError: the row is no key with base64, or the image is cut off.
        """
        source, row = self.locate(index)
        table = self.images[source]
        try:
            data = pybase64.b64decode(table.last_column(row), validate=True)
        except binascii.Error as error:
            raise BadSampleError(f"{table.where(row)}: broken base64 ({error}).") from error
        if is_cut_off(data):
            raise BadSampleError(f"{table.where(row)}: the image is cut off ({len(data)} bytes).")
        return table.key(row), data

    def label(self, index: int) -> dict:
        """Return the annotation of a sample.

        Raises:
            BadSampleError: the row is no JSON list with one dict.
        """
        source, row = self.locate(index)
        table = self.labels[source]
        try:
            label = json.loads(bytes(table.last_column(row)))
        except ValueError as error:
            if isinstance(error, BadSampleError):
                raise
            raise BadSampleError(f"{table.where(row)}: broken JSON ({error}).") from error
        if isinstance(label, list) and len(label) == 1:
            label = label[0]
        if not isinstance(label, dict):
            raise BadSampleError(f"{table.where(row)}: not a JSON list with one dict.")
        return label

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a sample's photo, from the `hw` table.

        Raises:
            BadSampleError: there is no such table, or its row cannot be read.
        """
        source, row = self.locate(index)
        if not self.sizes:
            raise BadSampleError(f"{display(self.path)} names no hw table.")
        table = self.sizes[source]
        text = bytes(table.last_column(row))
        try:
            if text.lstrip()[:1] in (b"[", b"{"):
                size = json.loads(text)
                size = size[0] if isinstance(size, list) else size
                return int(size["height"]), int(size["width"])
            height, width = text.split()
            return int(height), int(width)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BadSampleError(f"{table.where(row)}: no height and width in {text!r}.") from error

    def where(self, index: int) -> str:
        """Return the label's file and row, which name the sample in errors."""
        source, row = self.locate(index)
        return self.labels[source].where(row)

    def _tables(self, config: dict, name: str) -> list[TsvFile]:
        names = config.get(name)
        names = [names] if isinstance(names, str) else names
        if not names or not all(isinstance(item, str) for item in names):
            raise ValueError(
                f"{display(self.path)} names no {name!r} table; see datasets/README.md."
            )
        tables = [TsvFile(self.path.parent / item) for item in names]
        missing = [display(table.path) for table in tables if not table.path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(missing)}: missing, though {display(self.path)} names it. "
                "See datasets/README.md for where to get it."
            )
        return tables

    def _read_linelist(self, config: dict) -> tuple[np.ndarray, np.ndarray]:
        name = config.get("linelist")
        if name is None:  # then it is every row
            counts = [len(table) for table in self.labels]
            sources = np.repeat(np.arange(len(counts)), counts)
            return sources, np.concatenate([np.arange(count) for count in counts])
        path = self.path.parent / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{display(path)}, which {display(self.path)} names, is missing."
            )
        numbers = read_numbers(path)
        sources = numbers[:, 0] if numbers.shape[1] == 2 else np.zeros(len(numbers), np.int64)
        if len(sources) and not 0 <= sources.min() <= sources.max() < len(self.labels):
            raise ValueError(
                f"{display(path)} refers to source {sources.max()}, but {display(self.path)} names "
                f"{len(self.labels)}, counted from 0."
            )
        return sources, numbers[:, -1]


def read_yaml(path: Path) -> dict:
    """Read the yaml of a data set.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is no mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{display(path)} is missing. datasets/README.md says how to get the data; "
            "`python -m scripts.link_data STORE` links what you have, and SMPLER_DATASETS=DIR "
            "names another folder."
        )
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{display(path)} is not yaml: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{display(path)} names no tables; see datasets/README.md.")
    return config


class TsvWriter:
    """Writes a data set sample by sample; its files appear when all of it is on the disk.

    A context manager: leaving it by an exception removes what was written.

    Args:
        path: of the yaml; the tables' names start with its stem.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.num_rows = 0
        self._discarded = False
        self._starts = {name: [] for name in TABLES}
        self._files = {}

    def __enter__(self) -> "TsvWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._files = {name: self._temporary(f"{name}.tsv").open("wb") for name in TABLES}
        return self

    def __exit__(self, kind, *_) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if kind is None and not self._discarded:
            self._publish()
        for name in TABLES:
            self._temporary(f"{name}.tsv").unlink(missing_ok=True)

    def add(self, key: str, image: bytes, size: tuple[int, int], label: dict) -> None:
        """Append a sample.

        Args:
            key: its name, without tabs.
            image: the encoded JPEG.
            size: height and width of the photo.
            label: see `smpler.datasets.labels`; numpy arrays may be in it.
        """
        if "\t" in key or "\n" in key:
            raise ValueError(f"The key {key!r} holds a tab or a line break; rename the image.")
        height, width = size
        columns = {
            "img": base64.b64encode(image),
            "hw": json.dumps([{"height": height, "width": width}]).encode(),
            "label": json.dumps([label], allow_nan=False, default=np.ndarray.tolist).encode(),
        }
        for name, column in columns.items():
            self._append(name, key.encode() + b"\t" + column)
        self._append("linelist", str(self.num_rows).encode())
        self.num_rows += 1

    def discard(self) -> None:
        """Write no files when the writer is left."""
        self._discarded = True

    def _append(self, name: str, row: bytes) -> None:
        file = self._files[name]
        self._starts[name].append(file.tell())
        file.write(row + b"\n")

    def _publish(self) -> None:
        for name in TABLES:
            index = "".join(f"{start}\n" for start in self._starts[name])
            write_atomically(self._table(f"{name}.lineidx"), index.encode())
            os.replace(self._temporary(f"{name}.tsv"), self._table(f"{name}.tsv"))
        config = {name: self._table(f"{name}.tsv").name for name in TABLES}
        write_atomically(self.path, yaml.safe_dump(config, sort_keys=False).encode())

    def _table(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{ending}")

    def _temporary(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.stem}.{ending}.{os.getpid()}.tmp")


def write_composite(path: str | Path, sources: list[Path]) -> None:
    """Write a composite yaml of single ones, with every sample of each in its linelist.

    Raises:
        ValueError: a source is composite itself, or lacks a table.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {name: [] for name in ("img", "label", "hw")}
    lines = []
    for number, source in enumerate(sources):
        config = read_yaml(source)
        if config.get("composite"):
            raise ValueError(f"{display(source)} is composite itself; give its sources instead.")
        absent = [name for name in tables if not config.get(name)]
        if absent:
            raise ValueError(f"{display(source)} names no {absent[0]!r} table.")
        for name, names in tables.items():
            table = source.parent / config[name]
            names.append(os.path.relpath(table, path.parent))
        lines += [f"{number}\t{row}\n" for row in TsvDataset(source).rows]
    linelist = path.with_name(f"{path.stem}.linelist.tsv")
    write_atomically(linelist, "".join(lines).encode())
    config = {"composite": True, **tables, "linelist": linelist.name}
    write_atomically(path, yaml.safe_dump(config, sort_keys=False).encode())
