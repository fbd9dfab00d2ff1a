"""Arithmetic on trees of tensors (parameters by name, tuples, a single tensor), and their conversion to vectors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any
"""A tensor, or dictionaries, lists and tuples of them."""


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in an order that depends only on its structure."""
    return pytree.tree_leaves(tree)


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply a function to each leaf and its counterparts in `others`."""
    return pytree.tree_map(function, tree, *others)


def detached(tree: Tree) -> Tree:
    """The tree without autograd history."""
    return tree_map(torch.Tensor.detach, tree)


def zeros(tree: Tree) -> Tree:
    """Zeros of the same shapes."""
    return tree_map(torch.zeros_like, tree)


def pullback(function: Callable[..., Any], *arguments: Tree) -> tuple[Tree, Callable[..., Any]]:
    """The value of `function`, and its vector-Jacobian product: a cotangent of the value -> cotangents of the
    arguments. Both use one graph."""
    result: Any = torch.func.vjp(function, *arguments)
    return result


def dot(a: Tree, b: Tree) -> Tensor:
    """Sum of the products of all entries."""
    products = [(x * y).sum() for x, y in zip(leaves(a), leaves(b), strict=True)]
    return torch.stack(products).sum() if products else torch.zeros(())


def norm(tree: Tree) -> Tensor:
    """Euclidean norm of all entries together."""
    return dot(tree, tree).sqrt()


def cosine(a: Tree, b: Tree) -> Tensor:
    """Cosine of the angle between two trees; 0 if one is zero."""
    return dot(a, b) / (norm(a) * norm(b)).clamp_min(torch.finfo(torch.float32).tiny)


class Ravel:
    """Converts between a tree and one vector of all its entries."""

    def __init__(self, like: Tree) -> None:
        parts, self.structure = pytree.tree_flatten(like)
        self.shapes = [x.shape for x in parts]
        self.sizes = [x.numel() for x in parts]

    def vector(self, tree: Tree) -> Tensor:
        """All entries of a tree as a vector [sum of sizes]."""
        return torch.cat([x.reshape(-1) for x in leaves(tree)])

    def tree(self, vector: Tensor) -> Tree:
        """The tree of a vector [sum of sizes]."""
        parts = [x.view(shape) for x, shape in zip(vector.split(self.sizes), self.shapes, strict=True)]
        return pytree.tree_unflatten(parts, self.structure)
