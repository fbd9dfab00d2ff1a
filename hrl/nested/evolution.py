"""Outer gradients without backpropagation, from the outer loss under perturbed meta-parameters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrl.nested.estimate import Estimate, OuterLoss
from hrl.nested.inner import Inner, State, require_real
from hrl.nested.trees import Ravel, Tree, detached, norm
from hrl.nested.unrolled import detached_walk
from hrl.types import UserError


class Evolution:
    """Antithetic evolution strategies (Salimans 2017), unbiased for the loss smoothed over N(0, σ²).

    ∇ ≈ Σ_p ε_p (J(λ + σ ε_p) - J(λ - σ ε_p)) / (2 σ P), where each J is evaluated after `steps` inner steps from the
    same state. All perturbations run as one batch. Raises UserError for invalid arguments.
    """

    def __init__(self, inner: Inner, steps: int, sigma: float = 0.1, pairs: int = 16, seed: int = 0) -> None:
        if steps < 1 or not sigma > 0 or pairs < 1:
            raise UserError(f"Evolution needs positive steps, sigma and pairs, not {steps}, {sigma} and {pairs}.")
        self.inner, self.steps, self.sigma, self.pairs = inner, steps, sigma, pairs
        self.noise = Noise(seed)

    def begin(self, params: Tree) -> State:
        """The inner optimisation's initial state."""
        return self.inner.begin(params)

    def __call__(self, outer: OuterLoss, state: State, meta: Tree) -> Estimate:
        """Estimate the gradient. The returned state belongs to the unperturbed meta-parameters."""
        require_real(meta, "meta-parameters")
        ravel, state, meta = Ravel(meta), state.detached(), detached(meta)
        centre = ravel.vector(meta)
        noise = self.noise.draw(self.pairs, centre)

        def loss_of(vector: Tensor) -> Tensor:
            shifted = ravel.tree(vector)
            return outer(detached_walk(self.inner, state, shifted, self.steps).params, shifted)

        losses = torch.func.vmap(loss_of)(torch.cat([centre + self.sigma * noise, centre - self.sigma * noise]))
        end = detached_walk(self.inner, state, meta, self.steps)
        gradient, metrics = antithetic_gradient(noise, losses, self.sigma)
        return Estimate(outer(end.params, meta).detach(), ravel.tree(gradient), None, end.params, end, metrics)


class Particles(NamedTuple):
    """The state of persistent evolution strategies."""

    states: tuple[Tree, Tree]
    """Parameters and memories of 2 P inner optimisations, stacked; the second half uses the negated noise."""
    drift: Tensor
    """[P, M] the accumulated noise of each pair; the second half uses its negative."""
    centre: State
    """The unperturbed inner state."""
    start: State
    """The inner state at the start and after each reset."""


class PES:
    """Persistent evolution strategies (Vicol 2021): unbiased over the complete inner run, in windows of `steps`.

    Each of 2 P inner optimisations continues from window to window with new noise, and its loss is weighted with its
    accumulated noise: ∇ ≈ Σ_p ξ_p (J_p⁺ - J_p⁻) / (2 σ P), ξ ← ξ + ε. The outer loss is evaluated after each window;
    gradients add up over windows. After `horizon` inner steps, all inner optimisations are reset. Raises UserError for
    invalid arguments.
    """

    def __init__(
        self, inner: Inner, steps: int, horizon: int, sigma: float = 0.1, pairs: int = 16, seed: int = 0
    ) -> None:
        if not 1 <= steps <= horizon or not sigma > 0 or pairs < 1:
            raise UserError(
                f"PES needs horizon >= steps >= 1 and positive sigma and pairs, "
                f"not {horizon}, {steps}, {sigma} and {pairs}."
            )
        self.inner, self.steps, self.horizon, self.sigma, self.pairs = inner, steps, horizon, sigma, pairs
        self.noise = Noise(seed)

    def begin(self, params: Tree) -> State:
        """The initial state that all inner optimisations share."""
        return self.inner.begin(params)

    def spread(self, state: State, meta: Tree) -> Particles:
        """2 P copies of an inner state, without accumulated noise."""
        copies = torch.utils._pytree.tree_map(
            lambda x: x.expand(2 * self.pairs, *x.shape).clone(), (state.params, state.memory)
        )
        size = Ravel(meta).vector(meta)
        return Particles(copies, size.new_zeros(self.pairs, len(size)), state, state)

    def __call__(self, outer: OuterLoss, state: State | Particles, meta: Tree) -> Estimate:
        """Estimate the gradient of one window. After the last window of the horizon, the returned state is the initial
        state."""
        meta = detached(meta)
        at = state if isinstance(state, Particles) else self.spread(state.detached(), meta)
        ravel = Ravel(meta)
        centre = ravel.vector(meta)
        noise = self.noise.draw(self.pairs, centre)
        step = at.centre.step

        def advance(one: tuple[Tree, Tree], vector: Tensor) -> tuple[Tensor, tuple[Tree, Tree]]:
            shifted = ravel.tree(vector)
            end = detached_walk(self.inner, State(*one, step), shifted, self.steps)
            return outer(end.params, shifted), (end.params, end.memory)

        shifts = torch.cat([centre + self.sigma * noise, centre - self.sigma * noise])
        losses, states = torch.func.vmap(advance)(at.states, shifts)
        drift = at.drift + noise
        end = detached_walk(self.inner, at.centre, meta, self.steps)
        gradient, metrics = antithetic_gradient(drift, losses, self.sigma)
        over = end.step - at.start.step >= self.horizon
        following: Any = at.start if over else Particles(states, drift, end, at.start)
        return Estimate(outer(end.params, meta).detach(), ravel.tree(gradient), None, end.params, following, metrics)


class Noise:
    """Standard normal directions, with one generator per device."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def draw(self, count: int, like: Tensor) -> Tensor:
        """[count, M] on the device and with the dtype of `like` [M]."""
        device = like.device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return torch.randn(count, len(like), generator=self._generators[device], device=device, dtype=like.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """The random state of each device used so far."""
        return {str(device): generator.get_state() for device, generator in self._generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self._generators = {torch.device(name): torch.Generator(name) for name in state}
        for name, x in state.items():
            self._generators[torch.device(name)].set_state(x.cpu())


def antithetic_gradient(noise: Tensor, losses: Tensor, sigma: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ ε (J⁺ - J⁻) / (2 σ P), and metrics: its norm, and its standard error relative to its norm."""
    pairs = len(noise)
    each = noise * ((losses[:pairs] - losses[pairs:]) / (2 * sigma)).unsqueeze(-1)
    gradient = each.mean(0)
    error = (each.var(0, unbiased=False) / pairs).sum().sqrt()
    return gradient, {"outer_gradient": norm(gradient), "relative_error": error / gradient.norm().clamp_min(1e-30)}
