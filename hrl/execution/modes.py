"""How the functions on the data's way are run: as they are, compiled, or captured as CUDA graphs.

They are the same functions, and give the same results. A function may be captured if it touches the device alone,
has static shapes and keeps what it remembers in place: acting, observing and rounds of updates are such.
"""

import ctypes
import os
import shutil
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hrl.types import UserError

Mode = Literal["auto", "eager", "compile", "graph"]
F = TypeVar("F", bound=Callable[..., Any])

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # as glibc numbers them
WARM_UP = 3
"""Calls that run eagerly before a capture, so that libraries and optimisers have made what they keep."""


def none_true(mask: Tensor) -> bool:
    """Whether a mask is false everywhere, so that work can be left out: asked on a CPU, where asking is free.

    On a GPU the answer is no, since it would make the host wait, and what is left to do changes nothing there.
    """
    return mask.device.type == "cpu" and not bool(mask.any())


class Execution:
    """Eager: everything runs as it is written."""

    def function(self, function: F) -> F:
        """A function on the data's way that waits for no host: act, observe, or a round of updates."""
        return function

    def formula(self, formula: F) -> F:
        """A pure formula, such as a loss: no random numbers, nothing changed in place."""
        return formula


EAGER = Execution()


class Compiled(Execution):
    """Formulas go through torch.compile; what draws random numbers or writes in place stays around them."""

    def formula(self, formula: F) -> F:
        compiled: Any = torch.compile(formula, dynamic=False)
        return compiled


class Graphed(Execution):
    """Functions are captured as CUDA graphs, one for each combination of shapes and host arguments."""

    def function(self, function: F) -> F:
        captured: Any = Captured(function)
        return captured


EXECUTIONS: dict[str, type[Execution]] = {"eager": Execution, "compile": Compiled, "graph": Graphed}


def pick_execution(mode: Mode, device: torch.device) -> Execution:
    """The way to run on a device; auto captures on a GPU. Raises UserError where it cannot."""
    if mode == "auto":
        mode = "graph" if device.type == "cuda" else "eager"
    if mode == "compile" and device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("--execution compile needs a C++ compiler (g++, or the one that CXX names) on a CPU.")
    if mode == "graph" and device.type != "cuda":
        raise UserError("--execution graph captures CUDA graphs and needs --device cuda; use eager or compile here.")
    return EXECUTIONS[mode]()


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free instead of handing it back to the system page by page.

    Every tensor above 128 KiB is else mapped and cleared anew, which on a CPU takes as long as the arithmetic on it.
    Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_THRESHOLD, 2**25), (M_TOP_PAD, 2**26)):
        mallopt(option, value)


@dataclass
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Any


class Captured:
    """A function as CUDA graphs. Tensors given are copied to where the graph reads them; what it returns is
    overwritten by the next call. Host arguments (numbers, generators) select the graph."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._graphs: dict[Hashable, _Graph] = {}
        self._calls: Counter[Hashable] = Counter()

    def __call__(self, *arguments: Any) -> Any:
        leaves, structure = pytree.tree_flatten(arguments)
        key = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves)
        if self._calls[key] < WARM_UP:
            self._calls[key] += 1
            return self._aside(arguments)
        if key not in self._graphs:
            self._graphs[key] = self._capture(leaves, structure)
        captured = self._graphs[key]
        given = (x for x in leaves if isinstance(x, Tensor))
        for place, tensor in zip(captured.inputs, given, strict=True):
            place.copy_(tensor)
        captured.graph.replay()
        return captured.output

    def _aside(self, arguments: tuple[Any, ...]) -> Any:
        """Run eagerly on another stream, as captures want their warm-up."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = self.function(*arguments)
        current.wait_stream(stream)
        return output

    def _capture(self, leaves: list[Any], structure: Any) -> _Graph:
        places = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators(leaves):
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            output = self.function(*pytree.tree_unflatten(places, structure))
        return _Graph(graph, [x for x in places if isinstance(x, Tensor)], output)

    def _generators(self, leaves: list[Any]) -> list[torch.Generator]:
        """Random states that the graph advances at each replay: those given, and the owner's."""
        owner = getattr(getattr(self.function, "__self__", None), "generator", None)
        return [x for x in (*leaves, owner) if isinstance(x, torch.Generator)]
