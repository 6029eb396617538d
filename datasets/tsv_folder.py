"""The folder of a data set's tables, which appears whole, together with the yaml that names it.

Beside `X.yaml` lies `X.tables-HASH`, named after its content: other tables have another name, so a
yaml never names rows of one set with labels of another. One rename, of the yaml, replaces an older
set by a newer one; the older tables go afterwards. What killed writers leave is removed when the
same set is written again.
"""

import filecmp
import glob
import hashlib
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import yaml

from smpler.utils.files.text import CONTROL, read_bytes, shown
from smpler.utils.files.whole import (
    clear_parts,
    is_running,
    not_written,
    part_of,
    remove,
    replacing,
)
from smpler.utils.files.yaml_text import MAX_YAML, read_yaml
from smpler.utils.paths import display

TABLES = ("img", "hw", "label", "linelist")
REPLACES = "replaces"
"""File in the folder: tables of an older version's writer that this set replaces, one a line."""
NAME = re.compile(r".*\.tables-[0-9a-f]{12}(-[0-9]{1,3})?")
"""Name of a folder of tables."""


class TableFolder:
    """Tables that are written row by row, and published with their yaml.

    A context manager: what was not published when it is left is removed.

    Args:
        path: of the yaml.
        names: of the tables.

    Raises:
        OSError: the disk is full, or one may not write there; the message names the yaml.
        ValueError: another process is writing the same set.
    """

    def __init__(self, path: Path, names: Sequence[str] = TABLES):
        self.path = path
        self._names = names
        self._part = part_of(path.with_name(f"{path.stem}.tables"))
        self._files: dict[str, tuple[BinaryIO, BinaryIO]] = {}
        self._sizes = dict.fromkeys(names, 0)
        self._digest = hashlib.sha256()

    def __enter__(self) -> "TableFolder":
        self._check_names([self.path.name])
        with _named(self.path):
            if self.path.exists() and not self.path.is_file():
                raise not_written(self.path, "it is a folder, pipe or device")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            clear_parts(self.path.parent)
            remove(self._part)
            try:
                self._part.mkdir()
                self._refuse_others()
                clear(self.path)
                for name in self._names:
                    table, index = (self._part / f"{name}.{end}" for end in ("tsv", "lineidx"))
                    self._files[name] = table.open("wb"), index.open("wb")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_) -> None:
        for file in self._opened():
            with suppress(OSError):  # the disk is full, as the error says that ended the writing
                file.close()
        remove(self._part)

    def append(self, name: str, row: bytes) -> None:
        """Add a row, without its line break, to a table."""
        row += b"\n"
        table, index = self._files[name]
        try:
            index.write(b"%d\n" % self._sizes[name])
            table.write(row)
        except OSError as error:
            raise not_written(self.path, error.strerror) from error
        self._digest.update(row)
        self._sizes[name] += len(row)

    def publish(self, entries: dict) -> None:
        """Make the tables, together with other entries of the yaml, the data set."""
        with _named(self.path):
            for file in self._opened():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            older = _flat_tables(self.path)
            if older:
                _write(self._part / REPLACES, "\n".join(older))
            folder = self._place([*self._part.iterdir()])
            entries = entries | {name: f"{folder.name}/{name}.tsv" for name in self._names}
            self._check_names(_tables_in(entries))
            try:
                with replacing(self.path) as part:
                    _write(part, yaml.safe_dump(entries, sort_keys=False))
                    if not folder.exists():
                        os.replace(self._part, folder)
            finally:  # the older tables go, or these when the yaml could not be replaced
                clear(self.path)

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            if CONTROL.search(name):
                raise ValueError(
                    f"{display(self.path)} cannot be written: {shown(name)} holds control "
                    "characters or is no UTF-8. Rename it."
                )

    def _opened(self) -> list[BinaryIO]:
        return [file for files in self._files.values() for file in files]

    def _place(self, files: list[Path]) -> Path:
        """Return the folder's place: where there is none, or one that holds the same files."""
        token = self._digest.hexdigest()[:12]
        for number in range(1, 1000):
            ending = f"tables-{token}" + (f"-{number}" if number > 1 else "")
            folder = self.path.with_name(f"{self.path.stem}.{ending}")
            if not folder.exists() or _same(folder, files):
                return folder
        raise ValueError(f"{display(folder)} and others hold damaged tables; delete them.")

    def _refuse_others(self) -> None:
        """Make sure that no other process of this machine writes the same set."""
        for own in (self._part, part_of(self.path)):
            before, after = own.name.removesuffix(f"{os.getpid()}.part"), ".part"
            for path in own.parent.glob(f"{glob.escape(before)}*{after}"):
                process = path.name.removeprefix(before).removesuffix(after)
                if process.isdecimal() and int(process) != os.getpid() and is_running(int(process)):
                    raise ValueError(
                        f"{display(self.path)} is being written by process {process}. Wait for it; "
                        f"if that process does something else, delete {display(path)}."
                    )


def clear(path: Path) -> None:
    """Remove a yaml's older tables, and those of killed writers: folders that no yaml here names.

    Args:
        path: of the yaml.
    """
    folders = [
        folder
        for folder in path.parent.glob(f"{glob.escape(path.stem)}.tables-*")
        if NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
    ]
    unnamed = [folder for folder in folders if not _may_name(path, folder)]
    if unnamed:
        others = _yamls(path)
        for folder in unnamed:
            if not any(_may_name(other, folder) for other in others):
                remove(folder)
    for folder in folders:
        if (folder / REPLACES).is_file():
            with suppress(OSError):
                _remove_replaced(path, folder / REPLACES)


def _may_name(path: Path, folder: Path) -> bool:
    """Say whether a yaml names tables in a folder, or cannot be read, so that it may."""
    try:
        text = read_bytes(path, MAX_YAML) if path.is_file() else b""
    except (OSError, ValueError):
        return True
    return re.search(folder.suffix.encode() + rb"[/\\]", text) is not None


def _remove_replaced(path: Path, note: Path) -> None:
    """Remove the tables, with their indices, that a folder's note names and no yaml does."""
    named = [_named_tables(other) for other in _yamls(path) if other.is_file()]
    if None in named:
        return
    for name in set(note.read_text("utf-8", "replace").split("\n")) & set(_flat_names(path)):
        table = path.with_name(name)
        if not any(tables and os.path.abspath(table) in tables for tables in named):
            remove(table)
            remove(table.with_suffix(".lineidx"))
    remove(note)


def _yamls(path: Path) -> set[Path]:
    """Return this yaml and those beside it."""
    return {path, *path.parent.glob("*.yaml"), *path.parent.glob("*.yml")}


def _flat_names(path: Path) -> list[str]:
    """Return the names that older versions gave to a yaml's tables, which lay beside it."""
    return [f"{path.stem}.{name}.tsv" for name in TABLES]


def _flat_tables(path: Path) -> list[str]:
    """Return those of them that a yaml names."""
    named = (_named_tables(path) if path.is_file() else None) or set()
    return [name for name in _flat_names(path) if os.path.abspath(path.with_name(name)) in named]


def _named_tables(path: Path) -> set[str] | None:
    """Return the places of the tables that a yaml names; None if it cannot be read."""
    try:
        content = read_yaml(path)
    except (OSError, ValueError):
        return None
    names = _tables_in(content) if isinstance(content, dict) else []
    return {os.path.abspath(path.parent / name) for name in names}


def _tables_in(entries: dict) -> list[str]:
    """Return all names in a yaml."""
    lists = [entry if isinstance(entry, list) else [entry] for entry in entries.values()]
    return [name for names in lists for name in names if isinstance(name, str)]


def _same(folder: Path, files: list[Path]) -> bool:
    """Say whether a folder holds the same files, byte by byte."""
    return all(
        (folder / file.name).is_file() and filecmp.cmp(folder / file.name, file, shallow=False)
        for file in files
    )


def _write(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _named(path: Path) -> Generator[None, None, None]:
    """Let errors of the disk name the data set's yaml."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence of ours
            raise
        raise not_written(path, error.strerror) from error
