"""Reads what `torch.save` wrote, in both its formats, without running or believing anything in it.

torch's own reader allocates what a file names, raises a dozen kinds of exceptions, and advises to
run the file. Here its pickle is written down by `smpler.utils.safe_pickle`, and tensors are copied
out of the file when all sizes are checked.
"""

import io
import math
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smpler.utils.files.pickled_calls import KINDS, Made, Name, Pairs, Refused
from smpler.utils.files.pickled_values import MAX_DEPTH, Values, limited
from smpler.utils.safe_pickle import Recorder

STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip
TORCH_KINDS = KINDS | {
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("torch", "Size"): "size",
    **{("torch", f"{name}Storage"): f"{name}Storage" for name in STORAGES},
}
"""(module, name) in a file -> what stands for it here; other things are left out."""
WEIGHTS = ("model", "state_dict")
"""Entries that are never left out."""
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""How the old format begins."""
MAX_REPEATED = 2**24
"""Numbers of a tensor that repeats those of the file."""
UNKNOWN = "an object of"
_ORDER = "its numbers lie in another order of bytes than this machine's"
_COUNT = struct.Struct("<q")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Before each member of a zip archive: a mark, lengths of the name and of what follows it."""


def read_torch(path: Path, check_sums: bool) -> Any:
    """Return the tensors and plain values of a file; entries that hold other things are left out.

    Args:
        path: of the file.
        check_sums: compare each tensor with the archive's own checksum; the old format has none.

    Raises:
        Refused: it is no such file, is damaged, or other things stand where tensors belong.
        Exception: of any kind, when it is damaged.
    """
    if not path.stat().st_size:
        raise Refused("it is empty")
    with path.open("rb") as file:
        # closed when the last view of it is gone
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(data)
        if data[:2] == b"PK":
            with zipfile.ZipFile(file) as archive, _Sums(check_sums) as sums:
                content, values = _read_zip(archive, view, sums)
                return values.content(content)
        if data[:1] == b"\x80":
            content, values = _read_old(data, view)
            return values.content(content)
        raise Refused("it is no checkpoint of torch")


class _Sums:
    """Compares checksums in a thread, beside the reading; the context ends when all are done.

    Args:
        wanted: whether anything is compared.
    """

    def __init__(self, wanted: bool):
        self._wanted = wanted
        self._thread = ThreadPoolExecutor(1)
        self._found: list[tuple[Future[int], int]] = []

    def add(self, data: memoryview, expected: int) -> None:
        """Compare the checksum of some bytes."""
        if self._wanted:
            self._found.append((self._thread.submit(zlib.crc32, data), expected))

    def __enter__(self) -> "_Sums":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
        if error is None and any(found.result() != expected for found, expected in self._found):
            raise Refused("it is damaged: its bytes are not those that were written")


class _Unknown(Refused):
    """Something stands in the file that is neither a tensor nor a plain value."""


class _TorchRecorder(Recorder):
    """Knows torch's names too; notes unknown ones, which entries that nobody needs may hold."""

    def __init__(self, file: io.BytesIO | mmap.mmap):
        super().__init__(file)
        self.storages: dict[str, tuple[torch.dtype, int]] = {}
        """Key of each -> type and count of its numbers."""

    def find_class(self, module: str, name: str) -> Name:
        """Return what stands for a name, also an unknown one."""
        shown = f"{module[:80]}.{name[:80]}".encode("unicode_escape").decode()
        return Name(TORCH_KINDS.get((module, name), f"{UNKNOWN} {shown}"))

    def _storage(self) -> None:
        word, name, key, _, count, *_ = self.stack.pop()
        dtype = STORAGES.get(name.kind.removesuffix("Storage"))
        if word != "storage" or dtype is None or not isinstance(key, str):
            raise Refused("it holds tensors of a kind that is not read")
        if self.storages.setdefault(key, (dtype, _whole(count))) != (dtype, count):
            raise Refused("it names one storage as two")
        self.append(Made("storage", (key,)))

    def _build(self) -> None:
        if isinstance(self.stack[-2], Pairs):  # attributes of an OrderedDict
            self.stack.pop()
        else:
            super()._build()


_TorchRecorder.steps = {
    **Recorder.steps,
    pickle.BINPERSID[0]: _TorchRecorder._storage,
    pickle.BUILD[0]: _TorchRecorder._build,
}


class _TorchValues(Values):
    """Rebuilds tensors and plain values.

    Args:
        storages: see `_TorchRecorder`.
        find: returns the bytes of a storage by its key.
        size: bytes of the file, which the storages together do not exceed.
    """

    def __init__(
        self,
        storages: Mapping[str, tuple[torch.dtype, int]],
        find: Callable[[str], memoryview],
        size: int,
    ):
        super().__init__()
        self._storages, self._find, self._left = storages, find, size
        self._read: dict[str, Tensor] = {}

    def content(self, content) -> Any:
        """Return what the file holds, without the entries that hold something unknown."""
        if not isinstance(content, Pairs):
            return self._sized(content)[0]
        values = {}
        for name, item in _entries(content).items():
            try:
                values[name] = self._sized(item)[0]
            except _Unknown:
                if name in WEIGHTS:
                    raise
        return values

    def _rebuilt(self, item) -> tuple[Any, int]:
        if isinstance(item, Pairs):
            parts = {key: self._sized(value) for key, value in _entries(item).items()}
            size = 1 + sum(size for _, size in parts.values())
            return {key: value for key, (value, _) in parts.items()}, limited(size)
        if isinstance(item, Name | Made) and item.kind not in self.builders:
            raise _Unknown(f"it holds {item.kind}, which is neither a tensor nor a plain value")
        return super()._rebuilt(item)

    def _storage(self, made: Made) -> Tensor:
        (key,) = made.args
        if key not in self._read:
            dtype, count = self._storages[key]
            size = count * dtype.itemsize
            self._left -= size
            if self._left < 0:
                raise Refused("it is damaged: its tensors are larger than the file")
            data = self._find(key)
            if len(data) != size:
                raise Refused("it is damaged: a tensor has other bytes than its type and size")
            tensor = torch.empty(count, dtype=dtype)
            if size:
                tensor.view(torch.uint8).numpy()[:] = np.frombuffer(data, np.uint8)
            self._read[key] = tensor
        return self._read[key]

    def _tensor(self, made: Made) -> Tensor:
        storage, offset, shape, steps = (self._part(part) for part in made.args[:4])
        if not isinstance(storage, Tensor) or len(shape) != len(steps) or len(shape) > MAX_DEPTH:
            raise Refused("it is damaged: a tensor has no storage or no shape")
        offset, shape, steps = _whole(offset), [*map(_whole, shape)], [*map(_whole, steps)]
        count = math.prod(shape)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if count > max(len(storage), MAX_REPEATED) or (count and end > len(storage)):
            raise Refused("it is damaged: a tensor is larger than its storage")
        return storage.as_strided(shape, steps, offset)

    def _part(self, part) -> Any:
        return self._sized(part)[0]

    def _first(self, made: Made) -> Any:
        """Return what a parameter or a size is made of."""
        return self._part(made.args[0])


_TorchValues.builders = {
    **Values.builders,
    "storage": _TorchValues._storage,
    "tensor": _TorchValues._tensor,
    "parameter": _TorchValues._first,
    "size": _TorchValues._first,
}


def _read_zip(archive: zipfile.ZipFile, view: memoryview, sums: _Sums) -> tuple[Any, _TorchValues]:
    members = {info.filename: info for info in archive.infolist()}
    names = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise Refused("it is an archive, but not of tensors")
    folder = names[0].removesuffix("data.pkl")

    def find(name: str) -> memoryview:
        info = members[folder + name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused("it is not packed as torch packs tensors")
        mark, *lengths = _LOCAL_HEADER.unpack_from(view, info.header_offset)
        start = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
        found = view[start : start + info.file_size]
        if mark != b"PK\x03\x04" or len(found) != info.file_size:
            raise Refused("it is damaged: a part of it is missing")
        sums.add(found, info.CRC)
        return found

    if f"{folder}byteorder" in members and bytes(find("byteorder")) != b"little":
        raise Refused(_ORDER)
    recorder = _TorchRecorder(io.BytesIO(find("data.pkl")))
    content = recorder.load()
    return content, _TorchValues(recorder.storages, lambda key: find(f"data/{key}"), len(view))


def _read_old(data: mmap.mmap, view: memoryview) -> tuple[Any, _TorchValues]:
    """Read the old format: five pickles, then each storage behind the number of its numbers."""
    magic, version, system = (_TorchRecorder(data).load() for _ in range(3))
    if (magic, version) != (MAGIC, VERSION) or not isinstance(system, Pairs):
        raise Refused("it is no checkpoint of torch")
    if system.named().get("little_endian") is not True:
        raise Refused(_ORDER)
    recorder = _TorchRecorder(data)
    content, keys = recorder.load(), _TorchRecorder(data).load()
    places, start = {}, data.tell()
    for key in keys:
        dtype, count = recorder.storages[key]
        (stored,) = _COUNT.unpack_from(view, start)
        start += _COUNT.size + count * dtype.itemsize
        if stored != count or start > len(view):
            raise Refused("it is damaged or cut off")
        places[key] = view[start - count * dtype.itemsize : start]
    return content, _TorchValues(recorder.storages, places.__getitem__, len(view))


def _entries(pairs: Pairs) -> dict[Any, Any]:
    """Return a dict whose keys are texts and whole numbers, as those of an optimizer's state."""
    entries = dict(pairs.pairs())
    if not all(isinstance(key, str | int) for key in entries):
        raise _Unknown("it holds a dict whose keys are neither texts nor numbers")
    return entries


def _whole(number) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise Refused("it is damaged: a size in it is no number")
    return number
