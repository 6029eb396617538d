"""Smooth curves through the frames of a clip: uniform cubic B-splines, by least squares."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy.interpolate import BSpline
from scipy.linalg import solveh_banded

DEGREE = 3
STIFFNESS, BRIDGE = 1e-5, 1.0
"""Weights of the squared second differences of the coefficients, by the mean weight of the data:
everywhere, and where there are no data; there it carries the curve over the gap."""
SCARCE = 0.2
"""Below this share of the mean weight, data count as partly absent."""


@dataclass(frozen=True, eq=False)
class Spline:
    """The curves over some frames that change no faster than knots at a distance allow."""

    basis: scipy.sparse.csr_array
    """(frames, coefficients): what each coefficient does to each frame."""

    @classmethod
    def over(cls, count: int, spacing: float) -> "Spline":
        """Return the curves over `count` frames.

        Args:
            count: of the frames.
            spacing: distance of the knots, frames.
        """
        pieces = max(1, int(np.ceil((count - 1) / spacing)))
        length = max(count - 1, 1) / pieces
        knots = length * np.arange(-DEGREE, pieces + DEGREE + 1)
        x = np.clip(np.arange(count, dtype=float), 0, length * pieces)
        return cls(scipy.sparse.csr_array(BSpline.design_matrix(x, knots, DEGREE)))

    def part(self, first: int, last: int) -> Float[np.ndarray, "t k"]:
        """Return what the coefficients do to some frames, without those that do nothing there."""
        basis = self.basis[first:last].toarray()
        return basis[:, np.abs(basis).max(axis=0) > 0]

    def fitted(
        self, values: Float[np.ndarray, "t n"], weights: Float[np.ndarray, "t"]
    ) -> Float[np.ndarray, "t n"]:
        """Return the curves nearest to values, weighted least squares; 0 leaves a frame out."""
        if len(values) == 1:
            return values.copy()
        count = self.basis.shape[1]
        mean = max(float(weights.mean()), 1e-12)
        support = np.maximum(self.basis.T @ np.ones_like(weights), 1e-12)
        absent = 1 - ((self.basis.T @ weights) / (mean * support * SCARCE)).clip(0, 1)
        around = np.maximum.reduce([absent[:-2], absent[1:-1], absent[2:]])
        stiffness = mean * (STIFFNESS + BRIDGE * around)
        differences = scipy.sparse.diags_array(
            [1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(count - 2, count)
        ).tocsr()
        straight = differences.T @ differences.multiply(stiffness[:, None])
        weighted = self.basis.T.multiply(weights).tocsr()
        normal = weighted @ self.basis + straight
        banded = np.zeros((DEGREE + 1, count))
        for below in range(DEGREE + 1):
            banded[below, : count - below] = normal.diagonal(-below)
        return self.basis @ solveh_banded(banded, weighted @ values, lower=True)
