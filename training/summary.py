"""What TensorBoard shows of a run: its configuration, numbers by step, and pictures."""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from smpler.utils.paths import display

log = logging.getLogger(__name__)


class Summary:
    """Writes a run's TensorBoard file, as long as that is possible: training goes on without.

    tensorboardX's own `SummaryWriter` writes in a thread that a full disk ends; ten entries later
    its queue is full, and whoever adds another one waits for ever. Entries are few, so they are
    written at once here.

    Args:
        folder: where the file goes.
        first_step: from here on, entries of an earlier process that was interrupted are hidden.
        identity: plain values, shown as text.
    """

    def __init__(self, folder: Path, first_step: int, identity: dict):
        # here, for --help and evaluation do without
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        messages: Any = event_pb2  # whose classes protobuf makes as it runs
        self._folder, self._event, self._kinds = folder, messages.Event, summary
        self._file: RecordWriter | None = None
        self._try(lambda: self._open(RecordWriter))
        self._write(0, file_version="brain.Event:2")
        if first_step:
            self._write(
                first_step, session_log=messages.SessionLog(status=messages.SessionLog.START)
            )
        text = json.dumps(identity, indent=2, default=str)
        self._write(first_step, summary=summary.text("config", f"```\n{text}\n```"))
        self._flush()

    def add(self, step: int, values: dict[str, float | int]) -> None:
        """Write numbers of a step."""
        for name, value in values.items():
            self._write(step, summary=self._kinds.scalar(name, value))
        self._flush()

    def add_picture(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write a picture of a step."""
        self._write(step, summary=self._kinds.image(name, picture, dataformats="HWC"))
        self._flush()

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._try(self._file.close)
        self._file = None

    def _open(self, writer: type) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._file = writer(str(self._folder / name))

    def _write(self, step: int, **content: Any) -> None:
        file = self._file
        if file is not None:
            event = self._event(step=step, wall_time=time.time(), **content)
            self._try(lambda: file.write(event.SerializeToString()))

    def _flush(self) -> None:
        if self._file is not None:
            self._try(self._file.flush)

    def _try(self, task: Callable[[], object]) -> None:
        """Do something with the file; if that fails, say so once and leave TensorBoard out."""
        try:
            task()
        except OSError as error:
            log.warning(
                "TensorBoard's file in %s cannot be written (%s); training goes on without it.",
                display(self._folder),
                error.strerror or error,
            )
            broken, self._file = self._file, None
            if broken is not None:
                with contextlib.suppress(OSError):  # it tries once more to write what is left
                    broken.close()
