"""The shape space: principal components of people in T-pose, turned to have a meaning."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from scripts.build.open_body.symmetry import symmetric
from smpler.utils.joints import NUM_BETAS

LEADING_TRAITS = (("height", 1), ("bmi", -1), ("gender", 1))
"""Meaning and sign of the first betas: taller, thinner, more female."""


@dataclass(frozen=True, eq=False)
class ShapeSpace:
    """A mean body and ten directions: vertices = v_template + shapedirs . betas, in metres."""

    v_template: Float[np.ndarray, "v 3"]
    shapedirs: Float[np.ndarray, "v 3 10"]

    def encode(self, vertices: Float[np.ndarray, "n v 3"]) -> Float[np.ndarray, "n 10"]:
        """Return the betas that come nearest to bodies in T-pose."""
        offsets = (vertices - self.v_template).reshape(len(vertices), -1)
        return offsets @ np.linalg.pinv(self.shapedirs.reshape(-1, NUM_BETAS)).T

    def decode(self, betas: Float[np.ndarray, "n 10"]) -> Float[np.ndarray, "n v 3"]:
        """Return bodies in T-pose."""
        offsets = betas @ self.shapedirs.reshape(-1, NUM_BETAS).T
        return self.v_template + offsets.reshape(-1, *self.v_template.shape)


def fit_shape_space(
    vertices: Float[np.ndarray, "n v 3"],
    traits: dict[str, Float[np.ndarray, "n"]],
    mirror: Int[np.ndarray, "v"],
) -> ShapeSpace:
    """Fit ten betas to people in T-pose: uncorrelated, of variance 1, symmetric.

    The first three follow `LEADING_TRAITS`; the others are ordered by how far they move vertices.
    """
    count = len(vertices)
    mean = vertices.mean(axis=0, dtype=np.float64)
    offsets = (vertices - mean).reshape(count, -1)
    _, people = np.linalg.eigh(offsets @ offsets.T)
    betas = people[:, ::-1][:, :NUM_BETAS] * np.sqrt(count)  # of the largest variances
    shapedirs = offsets.T @ betas / count
    turn = _turn_to_traits(betas, shapedirs, traits)
    shapedirs = (shapedirs @ turn).reshape(-1, 3, NUM_BETAS)
    return ShapeSpace(
        v_template=symmetric(mean, mirror),
        shapedirs=np.moveaxis(symmetric(np.moveaxis(shapedirs, -1, 0), mirror), 0, -1),
    )


def _turn_to_traits(
    betas: Float[np.ndarray, "n 10"],
    shapedirs: Float[np.ndarray, "d 10"],
    traits: dict[str, Float[np.ndarray, "n"]],
) -> Float[np.ndarray, "10 10"]:
    """Return an orthogonal matrix: the span and the unit variances of the betas stay.

    Its first columns follow the traits, each orthogonal to those before; the rest are the
    principal directions of what is left, their largest entry positive.
    """
    leading = np.zeros((NUM_BETAS, 0))
    for name, sign in LEADING_TRAITS:
        trait = sign * (traits[name] - traits[name].mean())
        direction = np.linalg.lstsq(betas, trait, rcond=None)[0]
        direction -= leading @ (leading.T @ direction)
        leading = np.column_stack([leading, direction / np.linalg.norm(direction)])
    left = np.linalg.svd(leading, full_matrices=True)[0][:, len(LEADING_TRAITS) :]
    directions = shapedirs @ left
    rest = left @ np.linalg.eigh(directions.T @ directions)[1][:, ::-1]
    largest = rest[np.abs(rest).argmax(axis=0), np.arange(rest.shape[1])]
    return np.column_stack([leading, rest * np.sign(largest)])
