"""Execution modes: eager, torch.compile, or captured as CUDA graphs.

All modes run the same functions and give the same results. A function can be captured if it uses only the device, has
static shapes and updates its state in place. Acting, observing and rounds of updates fulfil these conditions.
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

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's constants
WARM_UP = 3
"""Eager calls before a capture, in which libraries and optimisers allocate their state."""


def none_true(mask: Tensor) -> bool:
    """Whether a mask on the CPU is false everywhere, so that the work it guards can be skipped.

    Returns False on a GPU: reading the mask would make the host wait, and the masked work changes nothing there.
    """
    return mask.device.type == "cpu" and not bool(mask.any())


class Execution:
    """Eager execution: functions run unchanged."""

    def function(self, function: F) -> F:
        """Prepare a function that never waits for the device: act, observe, or a round of updates."""
        return function

    def formula(self, formula: F) -> F:
        """Prepare a pure formula, such as a loss, which draws no random numbers and changes nothing in place."""
        return formula


EAGER = Execution()


class Compiled(Execution):
    """Compiles formulas with torch.compile. Code that draws random numbers or writes in place stays outside them."""

    def formula(self, formula: F) -> F:
        """The formula, compiled for static shapes."""
        compiled: Any = torch.compile(formula, dynamic=False)
        return compiled


class Graphed(Execution):
    """Captures functions as CUDA graphs, one for each combination of shapes and host arguments."""

    def function(self, function: F) -> F:
        """The function, captured at its first call with each combination of shapes."""
        captured: Any = Captured(function)
        return captured


EXECUTIONS: dict[str, type[Execution]] = {"eager": Execution, "compile": Compiled, "graph": Graphed}


def pick_execution(mode: Mode, device: torch.device) -> Execution:
    """The execution mode for a device; auto captures on a GPU. Raises UserError if the device does not support the
    mode."""
    if mode == "auto":
        mode = "graph" if device.type == "cuda" else "eager"
    if mode == "compile" and device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("--execution compile needs a C++ compiler on a CPU: install g++, or set CXX.")
    if mode == "graph" and device.type != "cuda":
        raise UserError("--execution graph captures CUDA graphs and needs --device cuda; use eager or compile here.")
    return EXECUTIONS[mode]()


def keep_freed_memory() -> None:
    """Make the C library keep the memory of freed tensors, instead of returning it to the system page by page.

    By default, the memory of every tensor above 128 KiB is mapped and cleared again, which on a CPU takes as long as
    the arithmetic on it. Does nothing if the C library is not glibc."""
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
    """A function as CUDA graphs. Tensor arguments are copied to the inputs of a graph; the next call overwrites the
    returned tensors. Host arguments (numbers, generators) select the graph."""

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
        """Run eagerly on another stream, as the warm-up of a capture requires."""
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
        """Generators that the graph advances at each replay: those among the arguments, and the generator of the
        function's object."""
        owner = getattr(getattr(self.function, "__self__", None), "generator", None)
        return [x for x in (*leaves, owner) if isinstance(x, torch.Generator)]
