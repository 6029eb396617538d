"""Whether arrays can be a body: their shapes, their numbers, the size of the person."""

import numpy as np
from jaxtyping import Float

from smpler.utils.joints import NUM_BETAS, SMPL_NAMES, SMPL_PARENTS

NUM_POSE_FEATURES = 9 * (len(SMPL_NAMES) - 1)

# SMPL's own field names (Loper et al.'s files) -> the shape of each array.
SMPL_FIELDS = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, f">={NUM_BETAS}"),
    "posedirs": ("V", 3, NUM_POSE_FEATURES),
    "J_regressor": (len(SMPL_NAMES), "V"),
    "weights": ("V", len(SMPL_NAMES)),
    "f": ("F", 3),
}
HEIGHTS = (0.5, 3.0)
"""Height that a person may have at rest [metres]."""
UNITS = {"millimetres": 1000, "centimetres": 100}
"""Unit -> how many make a metre."""
LARGEST_OFFSET = 10.0
"""Largest number of `shapedirs` and `posedirs` [metres]."""
WEIGHT_TOLERANCE = 0.01


def check_shapes(arrays: dict[str, np.ndarray], name: str) -> None:
    """Check that SMPL's fields hold numbers in SMPL's shapes, and that faces have their vertices.

    Raises:
        ValueError: the first field that does not fit.
    """
    sizes = {"V": len(np.atleast_1d(arrays["v_template"])), "F": len(np.atleast_1d(arrays["f"]))}
    for field, expected in SMPL_FIELDS.items():
        shape = arrays[field].shape
        fits = len(shape) == len(expected) and all(
            size >= NUM_BETAS if entry == f">={NUM_BETAS}" else size == sizes.get(entry, entry)
            for size, entry in zip(shape, expected, strict=True)
        )
        if not fits:
            text = ", ".join(str(entry) for entry in expected)
            raise ValueError(
                f"The body {name!r} has {field!r} of shape {shape}, but ({text}) was expected with "
                f"V = {sizes['V']}; SMPLer needs SMPL itself (24 joints), not SMPL-H or SMPL-X."
            )
        if arrays[field].dtype.kind not in "biuf":
            raise ValueError(f"The body {name!r} has a {field!r} that does not hold numbers.")
    faces = arrays["f"]
    if faces.size and not 0 <= faces.min() <= faces.max() < sizes["V"]:  # NaN neither
        raise ValueError(
            f"The body {name!r} has a face that names vertex {faces.max()} of {sizes['V']}."
        )


def to_float32(array: np.ndarray, what: str) -> np.ndarray:
    """Return a copy in float32.

    Raises:
        ValueError: it holds other than numbers that are finite in float32; `what` holds them.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} does not hold numbers.")
    with np.errstate(over="ignore"):
        numbers = np.array(array, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} has a value that is not finite in float32.")
    return numbers


def check_kinematic_tree(kintree_table: np.ndarray, name: str) -> None:
    """Check that the joints hang together as SMPL's.

    Raises:
        ValueError: they do not.
    """
    parents = np.atleast_1d(kintree_table)[:1].ravel()  # the root's parent is stored as uint32(-1)
    if tuple(parents[1:].tolist()) != SMPL_PARENTS[1:]:
        raise ValueError(
            f"The body {name!r} has a kinematic tree other than SMPL's: {parents[:24].tolist()}."
        )


def check_person(
    v_template: Float[np.ndarray, "v 3"],
    shapedirs: Float[np.ndarray, "v 3 10"],
    posedirs: Float[np.ndarray, "v 3 207"],
    lbs_weights: Float[np.ndarray, "v 24"],
    name: str,
) -> None:
    """Check what a file says about a person: the size in metres, the weights of the joints.

    Raises:
        ValueError: the first number that no person has.
    """
    extent = float(np.ptp(v_template, axis=0).max()) if v_template.size else 0.0
    low, high = HEIGHTS
    if not low <= extent <= high:
        advice = "Give a body in metres."
        for unit, each in UNITS.items():
            if extent > 1 and low <= extent / each <= high:
                advice = f"It seems to be in {unit}: divide v_template, shapedirs and posedirs by "
                advice += f"{each}."
        raise ValueError(
            f"The body {name!r} is {extent:.4g} m large at rest, where a person is {low:g} to "
            f"{high:g} m. {advice}"
        )
    for field, offsets in (("shapedirs", shapedirs), ("posedirs", posedirs)):
        largest = max(offsets.max(), -offsets.min())
        if largest > LARGEST_OFFSET:
            raise ValueError(
                f"The body {name!r} has {largest:.4g} m in {field!r}, where a person has less than "
                f"{LARGEST_OFFSET:g} m. Give a body in metres."
            )
    least, total = lbs_weights.min(), lbs_weights.sum(axis=1)
    if least < 0 or np.abs(total - 1).max() > WEIGHT_TOLERANCE:
        raise ValueError(
            f"The body {name!r} has skinning weights that are negative or do not sum to 1: the "
            f"least is {least:.3g}, sums are {total.min():.3g} to {total.max():.3g}. Get the file "
            "again."
        )
