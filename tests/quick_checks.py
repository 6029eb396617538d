"""Checks signatures as quickly as each needs; imported before what is checked, by conftest.py.

jaxtyping wraps every function of the packages that pytest names, so that letters in shapes stand
for the same number in a whole signature. Where a signature holds no shape, beartype alone checks
the same, and without annotations there is nothing to check: of 444 functions, 99 hold shapes.
Tests that build models or read checkpoints take three quarters of the time in this way.
"""

import inspect
from collections.abc import Callable
from typing import ForwardRef

import jaxtyping
from beartype import beartype

_with_shapes = jaxtyping.jaxtyped


def mentions_shapes(hint: object) -> bool:
    """Say whether an array's shape is, or in a text may be, part of a type."""
    if isinstance(hint, str | ForwardRef):
        return True
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(mentions_shapes(part) for part in getattr(hint, "__args__", None) or ())


def jaxtyped(*, typechecker: Callable) -> Callable:
    """Stand in for `jaxtyping.jaxtyped`, which jaxtyping's import hook applies."""

    def decorate(checked):
        hints = inspect.get_annotations(checked)
        if not inspect.isfunction(checked) or inspect.isgeneratorfunction(checked):
            return _with_shapes(checked, typechecker=typechecker)
        if not hints:
            return checked
        if any(mentions_shapes(hint) for hint in hints.values()):
            return _with_shapes(checked, typechecker=typechecker)
        return beartype(checked)

    return decorate


jaxtyping.jaxtyped = jaxtyped
