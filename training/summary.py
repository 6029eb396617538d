"""What TensorBoard shows of a run: its configuration, numbers by step, and pictures."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


class Summary:
    """Writes a run's TensorBoard file.

    Args:
        folder: where the file goes.
        first_step: from here on, entries of an earlier process that was interrupted are hidden.
        identity: plain values, shown as text.
    """

    def __init__(self, folder: Path, first_step: int, identity: dict):
        from tensorboardX import SummaryWriter  # here, for --help and evaluation do without

        self._writer = SummaryWriter(str(folder), purge_step=first_step or None)
        text = json.dumps(identity, indent=2, default=str)
        self._writer.add_text("config", f"```\n{text}\n```", first_step)

    def add(self, step: int, values: dict[str, float | int]) -> None:
        """Write numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def add_picture(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write a picture of a step."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
