"""Results of an evaluation: printed, and kept as json, npz and a row of a table."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smpler.models.weights.files import first
from smpler.training.engine import METRICS, is_measured, summarise
from smpler.utils.files.whole import replacing_set, write_bytes_whole, write_whole

RANKED = ("mpjpe", "mpve")
"""Metrics that decide which samples are the worst; the first one that was measured counts."""


@dataclass(frozen=True)
class Evaluation:
    """The errors of every sample, and how they were measured."""

    errors: dict[str, np.ndarray]
    """`index`, `key`, flags and metrics in metres, see `smpler.training.engine.evaluate`."""
    protocol: dict
    """A `smpler.datasets.Protocol` as plain values."""
    setting: dict
    """Body, regressor, weights, flip test: what else the numbers depend on."""

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """Mean [mm] and number of samples of each metric."""
        return summarise(self.errors)

    @property
    def not_finite(self) -> list[str]:
        """Names of the samples whose prediction is not finite; no mean counts them."""
        return self.errors["key"][~self.errors["is_finite"]].tolist()

    def problem(self) -> str | None:
        """Say in a sentence why the numbers are not those of the whole set; None if they are."""
        count, total = len(self.not_finite), len(self.errors["index"])
        if count:
            return (
                f"{count} of {total} predictions are not finite and count in no mean: "
                f"{first(self.not_finite)}."
            )
        if not self.summary:
            return f"None of the {total} samples is annotated with anything that is measured."
        return None

    def lines(self) -> list[str]:
        """Return the lines to print: the published ones, then samples, rule and setting."""
        summary = self.summary
        numbers = [f"{name}: {summary[name]['mean_mm']:.3f}" for name in summary]
        counts = ", ".join(f"{name} {value['samples']}" for name, value in summary.items())
        setting = ", ".join(f"{key}={value}" for key, value in self.setting.items())
        return [
            *numbers,
            f"samples: {len(self.errors['index'])}, no padding ({counts or 'nothing measured'})",
            f"rule: {self.protocol['rule']}",
            setting,
        ]

    def worst(self, count: int) -> list[tuple[int, str]]:
        """Return index and caption of the samples with the largest errors, the worst first."""
        name = next((name for name in RANKED if name in self.summary), RANKED[0])
        values = self.errors.get(name)
        if values is None:
            return []
        measured = is_measured(self.errors, name)
        order = np.argsort(-np.where(measured, values, -1.0), kind="stable")[:count]
        chosen = [row for row in order if measured[row]]
        return [
            (
                int(self.errors["index"][row]),
                f"{name} {1000 * values[row]:.0f} mm, {self.errors['key'][row]}",
            )
            for row in chosen
        ]

    def table_row(self) -> str:
        """Return one row of a markdown table: weights, body, then the metrics in mm."""
        summary = self.summary
        cells = [f"{summary[m]['mean_mm']:.1f}" if m in summary else "" for m in METRICS]
        names = [str(self.setting.get(key, "")) for key in ("weights", "body")]
        return "| " + " | ".join([self.protocol["name"], *names, *cells]) + " |"

    def save(self, folder: Path, name: str) -> None:
        """Write NAME.json (summary), NAME.npz (each sample) and NAME.md (table row).

        They appear together, the json last; older ones go, and NAME_worst.png.

        Raises:
            OSError: a file could not be written; older ones stay as they are.
        """
        content = {
            "protocol": self.protocol,
            "setting": self.setting,
            "samples": len(self.errors["index"]),
            "padding": "none",
            "not_finite": self.not_finite,
            "metrics": self.summary,
        }
        folder.mkdir(parents=True, exist_ok=True)
        json_text = json.dumps(content, indent=2) + "\n"
        header = "| protocol | weights | body | MPVE | MPJPE | PA-MPJPE |\n|" + "---|" * 6 + "\n"
        table = header + self.table_row() + "\n"
        with replacing_set(folder / f"{name}.json", [folder / f"{name}_worst.png"]) as part:
            write_bytes_whole(part / f"{name}.json", json_text.encode())
            write_whole(
                part / f"{name}.npz",
                lambda file: np.savez_compressed(file, allow_pickle=False, **self.errors),
            )
            write_bytes_whole(part / f"{name}.md", table.encode())
