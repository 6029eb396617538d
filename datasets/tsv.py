"""METRO's TSV layout (Lin et al., CVPR 2021): a reader by sample number, and a writer.

A data set is a yaml file that names four tables, which are regular files:

- `img`: key TAB base64 of a JPEG (in the last column)
- `label`: key TAB JSON list with one dict, see `smpler.datasets.labels`
- `hw`: key TAB `[{"height": h, "width": w}]`, or `h w`
- `linelist`: the rows that belong to the set, one number a line

In a composite set (`composite: true`), the first three are lists of tables, and the linelist holds
`source TAB row`. Paths are absolute or relative to the yaml's folder. The writer puts tables into a
folder of their own, see `smpler.datasets.tsv_folder`.
"""

import binascii
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pybase64

from smpler.datasets.tsv_file import (
    BadSampleError,
    TsvFile,
    is_cut_off,
    is_too_large,
    read_numbers,
)
from smpler.datasets.tsv_folder import TableFolder
from smpler.utils.files.text import CONTROL, one_line, parse_json, shown
from smpler.utils.files.yaml_text import read_yaml
from smpler.utils.image import MAX_PIXELS
from smpler.utils.paths import display

MAX_LABEL, MAX_IMAGE = 2**20, 2**28
"""Bytes of a label and of an image's base64: a hundred times what they usually have."""
MAX_SIDE = 2**31 - 1
"""Pixels of a photo's side, as the hw table gives it."""
MAX_NAMED = 3
"""Missing tables that are named."""


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
        config = self._read_config()
        self.is_composite = bool(config.get("composite"))
        """Whether its tables are those of several data sets."""
        self.images = self._tables(config, "img")
        self.labels = self._tables(config, "label")
        self.sizes = self._tables(config, "hw") if config.get("hw") else []
        if len(self.images) != len(self.labels) or len(self.sizes) not in (0, len(self.labels)):
            raise ValueError(
                f"{display(self.path)} names {len(self.images)} img, {len(self.labels)} label and "
                f"{len(self.sizes)} hw tables; each source needs one of each, or none has hw."
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
            BadSampleError: the row is no key with base64, or the image is cut off or too large.
        """
        source, row = self.locate(index)
        table = self.images[source]
        column = table.last_column(row, MAX_IMAGE)
        try:
            data = pybase64.b64decode(column, validate=True)
        except binascii.Error as error:
            raise BadSampleError(f"{table.where(row)}: broken base64 ({error}).") from error
        if is_cut_off(data):
            raise BadSampleError(f"{table.where(row)}: the image is cut off ({len(data)} bytes).")
        if is_too_large(data):
            raise BadSampleError(
                f"{table.where(row)}: the image has more than {MAX_PIXELS // 10**6} megapixels."
            )
        return table.key(row), data

    def label(self, index: int) -> dict:
        """Return the annotation of a sample.

        Raises:
            BadSampleError: the row is no JSON list with one dict.
        """
        source, row = self.locate(index)
        table = self.labels[source]
        column = table.last_column(row, MAX_LABEL)
        try:
            label = parse_json(column, table.where(row))
        except ValueError as error:
            raise BadSampleError(str(error)) from error
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
        text = bytes(table.last_column(row, MAX_LABEL))
        with suppress(ValueError, KeyError, IndexError, TypeError):
            if text.lstrip()[:1] in (b"[", b"{"):
                size = parse_json(text, table.where(row))
                size = size[0] if isinstance(size, list) else size
                height, width = size["height"], size["width"]
            else:
                height, width = (int(number) for number in text.split())
            if type(height) is type(width) is int and 0 <= min(height, width) <= MAX_SIDE >= max(
                height, width
            ):
                return height, width
        raise BadSampleError(
            f"{table.where(row)}: no height and width in {shown(text.decode('utf-8', 'replace'))}."
        )

    def where(self, index: int) -> str:
        """Return the label's file and row, which name the sample in errors."""
        source, row = self.locate(index)
        return self.labels[source].where(row)

    def _read_config(self) -> dict:
        if not self.path.exists():
            raise FileNotFoundError(
                f"{display(self.path)} is missing. datasets/README.md says how to get the data; "
                "`python -m scripts.link_data STORE` links what you have, and SMPLER_DATASETS=DIR "
                "names another folder."
            )
        config = read_yaml(self.path)
        if not isinstance(config, dict):
            raise ValueError(f"{display(self.path)} names no tables; see datasets/README.md.")
        return config

    def _tables(self, config: dict, name: str) -> list[TsvFile]:
        names = config.get(name)
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names:
            raise ValueError(
                f"{display(self.path)} names no {name!r} table; see datasets/README.md."
            )
        return [TsvFile(path) for path in self._find(name, names)]

    def _find(self, name: str, names: list) -> list[Path]:
        """Return where tables are, which must be regular files: reading others may never end."""
        for item in names:
            if not isinstance(item, str) or not item:
                raise ValueError(
                    f"{display(self.path)} names {shown(item)} as {name!r} table, not a file."
                )
            if item.lower().endswith(".lineidx"):
                raise ValueError(
                    f"{display(self.path)} names {shown(item)} as {name!r} table, but that is a "
                    "table's index; name the .tsv beside it."
                )
        paths = [self.path.parent / item for item in names]
        missing = [one_line(display(path)) for path in paths if not _is_file(path)]
        if missing:
            more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
            advice = "See datasets/README.md for where to get it."
            if self.is_composite:
                advice = (
                    "If a source was written anew, combine them again with python -m "
                    f"scripts.combine_datasets. {advice}"
                )
            raise FileNotFoundError(
                f"{', '.join(missing[:MAX_NAMED])}{more}: missing, or no regular file, though "
                f"{display(self.path)} names it. {advice}"
            )
        return paths

    def _read_linelist(self, config: dict) -> tuple[np.ndarray, np.ndarray]:
        name = config.get("linelist")
        if name is None:  # then it is every row
            counts = [len(table) for table in self.labels]
            sources = np.repeat(np.arange(len(counts)), counts)
            return sources, np.concatenate([np.arange(count) for count in counts])
        (path,) = self._find("linelist", [name])
        numbers = read_numbers(path)
        if len(numbers) and len(self.labels) > 1 and numbers.shape[1] == 1:
            raise ValueError(
                f"{display(path)} holds row numbers alone, but {display(self.path)} names "
                f"{len(self.labels)} sources: its lines must be SOURCE TAB ROW."
            )
        sources = numbers[:, 0] if numbers.shape[1] == 2 else np.zeros(len(numbers), np.int64)
        if len(sources) and sources.max() >= len(self.labels):
            raise ValueError(
                f"{display(path)} refers to source {sources.max()}, but {display(self.path)} names "
                f"{len(self.labels)}, counted from 0."
            )
        return sources, numbers[:, -1]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be read
        return False


class TsvWriter:
    """Writes a data set sample by sample; it appears, or replaces an older one, as a whole.

    A context manager: leaving it by an exception removes what was written.

    Args:
        path: of the yaml; the folder of its tables lies beside it, see `TableFolder`.

    Raises:
        OSError: the disk is full, or one may not write there; the message names the yaml.
        ValueError: another process is writing the same set.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.num_rows = 0
        self._discarded = False
        self._tables = TableFolder(self.path)

    def __enter__(self) -> "TsvWriter":
        self._tables.__enter__()
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None and not self._discarded:
                self._tables.publish({})
        finally:
            self._tables.__exit__()

    def add(self, key: str, image: bytes, size: tuple[int, int], label: dict) -> None:
        """Append a sample.

        Args:
            key: its name, without tabs.
            image: the encoded JPEG.
            size: height and width of the photo.
            label: see `smpler.datasets.labels`; numpy arrays may be in it.

        Raises:
            OSError: the disk is full.
            ValueError: the key or the label cannot be written.
        """
        if CONTROL.search(key):
            raise ValueError(
                f"The key {shown(key)} holds a tab, a line break or another control character; "
                "rename the image."
            )
        height, width = size
        columns = {
            "img": pybase64.b64encode(image),
            "hw": json.dumps([{"height": height, "width": width}]).encode(),
            "label": json.dumps([label], allow_nan=False, default=np.ndarray.tolist).encode(),
        }
        for name, column in columns.items():
            self._tables.append(name, key.encode() + b"\t" + column)
        self._tables.append("linelist", b"%d" % self.num_rows)
        self.num_rows += 1

    def discard(self) -> None:
        """Write no files when the writer is left."""
        self._discarded = True


def write_composite(path: str | Path, sources: list[Path]) -> list[int]:
    """Write a composite yaml of single ones, with every sample of each in its linelist.

    Returns:
        How many samples each source has.

    Raises:
        FileNotFoundError: a source or one of its tables is missing.
        OSError: the disk is full, or one may not write there; the message names the yaml.
        ValueError: a source is composite itself, or lacks a table.
    """
    path = Path(path)
    tables: dict[str, list[str]] = {"img": [], "label": [], "hw": []}
    read = [TsvDataset(source) for source in sources]
    for data in read:
        if data.is_composite or len(data.labels) > 1:
            raise ValueError(f"{display(data.path)} is composite itself; give its sources instead.")
        if not data.sizes:
            raise ValueError(f"{display(data.path)} names no 'hw' table.")
        parts = {"img": data.images, "label": data.labels, "hw": data.sizes}
        for name, (table,) in parts.items():
            tables[name].append(os.path.relpath(table.path, path.parent))
    with TableFolder(path, ["linelist"]) as folder:
        for number, data in enumerate(read):
            for row in data.rows.tolist():
                folder.append("linelist", b"%d\t%d" % (number, row))
        folder.publish({"composite": True, **tables})
    return [len(data) for data in read]
