"""Training with less memory: what batch normalisation gives is computed again when it is needed.

Autograd keeps each convolution's input and each normalisation's input. The former, relu(bn(y) + x),
follows from the latter, y, by cheap arithmetic. Within `recomputing` it is therefore not kept: in
its place autograd holds a recipe, and the backward pass makes the values anew, by the same kernels
from the same numbers, so that gradients are the same to the last bit. Running statistics are not
touched a second time.
"""

import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def normalise(
    norm: nn.Module,
    y: Float[Tensor, "b c h w"],
    shortcut: Float[Tensor, "b c h w"] | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Return activation(norm(y) + shortcut); within `recomputing`, autograd does not keep it.

    Args:
        norm: other modules than plain batch normalisation are called as ever, and kept.
        y: what a convolution gave.
        activation: may work in place.
    """
    result = norm(y)
    if shortcut is not None:
        result = result + shortcut
    if _recipes is not None and type(norm) is nn.BatchNorm2d:
        _recipes.add(result, _Recipe(norm, y.detach(), _recipes.source(shortcut), activation))
    return result if activation is None else activation(result)


@contextmanager
def recomputing() -> Generator[None]:
    """Let autograd hold recipes for what `normalise` returns."""
    global _recipes
    outer, _recipes = _recipes, _Recipes()
    try:
        with torch.autograd.graph.saved_tensors_hooks(_recipes.pack, _unpack):
            yield
    finally:
        _recipes = outer


def saves_memory(backbone: nn.Module) -> bool:
    """Whether this forward pass shall be `recomputing`; compiled code does as much by itself."""
    is_asked = bool(backbone.recompute) and backbone.training and torch.is_grad_enabled()
    return is_asked and not torch.compiler.is_compiling()


@dataclass
class _Recipe:
    """How to make a tensor again. Once made, it lasts as long as autograd holds the recipe."""

    norm: nn.BatchNorm2d
    y: Tensor
    shortcut: "Tensor | _Recipe | None"
    activation: Callable[[Tensor], Tensor] | None
    value: Tensor | None = None

    def __post_init__(self):
        self.by_batch = self.norm.training or self.norm.running_mean is None

    @torch.no_grad()
    def make(self) -> Tensor:
        if self.value is None:
            norm = self.norm
            mean, var = (None, None) if self.by_batch else (norm.running_mean, norm.running_var)
            result = F.batch_norm(
                self.y, mean, var, norm.weight, norm.bias, self.by_batch, eps=norm.eps
            )
            if self.shortcut is not None:
                result += _unpack(self.shortcut)
            self.value = result if self.activation is None else self.activation(result)
        return self.value


class _Recipes:
    """The recipes of tensors that are alive, by their memory."""

    def __init__(self):
        self.entries: dict[int, tuple[weakref.ref[Tensor], _Recipe]] = {}

    def add(self, tensor: Tensor, recipe: _Recipe) -> None:
        self.entries[tensor.untyped_storage().data_ptr()] = (weakref.ref(tensor), recipe)

    def source(self, tensor: Tensor | None) -> "Tensor | _Recipe | None":
        """Return how to get a tensor later: its recipe, or itself when there is none."""
        return None if tensor is None else self.pack(tensor.detach())

    def pack(self, tensor: Tensor) -> "Tensor | _Recipe":
        """Exchange what autograd wants to keep for its recipe, if it has one."""
        entry = self.entries.get(tensor.untyped_storage().data_ptr())
        if entry is None:
            return tensor
        reference, recipe = entry
        made = reference()
        if made is None:  # its memory may have been given to another tensor
            return tensor
        is_same = tensor.shape == recipe.y.shape and tensor.stride() == made.stride()
        return recipe if is_same and tensor.dtype == made.dtype else tensor


def _unpack(kept: Tensor | _Recipe) -> Tensor:
    return kept.make() if isinstance(kept, _Recipe) else kept


_recipes: _Recipes | None = None
"""Of the forward pass that is running. No context variable, which torch.compile cannot follow."""
