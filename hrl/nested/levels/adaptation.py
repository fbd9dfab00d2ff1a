"""Fast adaptation to many tasks at once. Each task has its own parameters, which start from common initial values.

Some parameters of a policy adapt to a task by a few policy-gradient steps; all tasks share the other parameters. The
outer level learns the initial values of the adapted parameters, and the shared parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from hrl.nested.inner import Descent, parameters
from hrl.nested.optimisers import SGD
from hrl.nested.trees import Tree, detached, tree_map
from hrl.networks.functional import call
from hrl.policies.policy_gradient import Trajectories, dice, score, surrogate

Params = dict[str, Tensor]


class Adaptation:
    """A policy with parameters that adapt to a task by policy gradient; `adapts` selects them by name."""

    def __init__(
        self, policy: Any, adapts: Callable[[str], bool], lr: float, first_order: bool = False, correction: bool = False
    ) -> None:
        self.policy, self.lr, self.first_order = policy, lr, first_order
        self.loss = dice if correction else score
        named = parameters(policy)
        self.initial: Params = {name: x for name, x in named.items() if adapts(name)}
        self.shared: Params = {name: x for name, x in named.items() if not adapts(name)}

    def call(self, method: str, params: Params, *arguments: Any) -> Any:
        """Call a method of the policy with these parameters."""
        return call(self.policy, method, params, *arguments)

    def log_prob(self, own: Params, shared: Params, data: Trajectories) -> Tensor:
        """Log-probabilities [T, E] of one task's episodes."""
        return self.call("log_prob", shared | own, data.state, data.action, data.memory)

    def spread(self, tasks: int) -> Params:
        """The initial values of the adapted parameters of all tasks, with a leading task dimension."""
        return tree_map(lambda x: x.expand(tasks, *x.shape), self.initial)

    def act(self, own: Params, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [M, E, ...] in M tasks' episodes for states [M, E, D]; the most likely actions without noise."""
        dims = (0, 0, 0, None if noise is None else 0)
        with torch.no_grad():
            act = vmap(lambda p, s, m, n: self.call("act", self.shared | p, s, m, n), in_dims=dims)
            return act(own, state, memory, noise)

    def stepped(self, own: Params, shared: Params, data: Trajectories, lr: float) -> Params:
        """One task's parameters after one step on its episodes, differentiable in own and shared parameters."""

        def loss(own: Params, shared: Params, step: int) -> Tensor:
            return self.loss(self.log_prob(own, shared, data), data)

        inner = Descent(loss, SGD(lr))
        return inner.step(inner.begin(own), shared, self.first_order).params

    def adapted(self, own: Params, data: Trajectories, lr: float | None = None) -> Params:
        """All tasks' parameters [M, ...] after one step each, detached, for acting."""
        lr = self.lr if lr is None else lr
        return detached(vmap(lambda p, d: self.stepped(p, self.shared, d, lr))(own, data))

    def objective(
        self, way: Sequence[Trajectories], last: Trajectories, first: int | None = None, entropy: float = 0.0
    ) -> Callable[[Tree], tuple[Tensor, Tensor]]:
        """Returns a function (initial, shared) -> the means over tasks of the loss after adaptation and the divergence.

        `way` are the episodes of each adaptation step, `last` those of the adapted policy. The loss is the mean over
        the episodes from adaptation step `first` on (default: only `last`), minus `entropy` times the entropy. The
        divergence measures how far the last adapted policies are from the policies that acted; it is 0 if it has no
        closed form. Parameters that are not given keep their values.
        """
        rollouts, scored = (*way, last), range(len(way) if first is None else first, len(way) + 1)
        acted, was = self._acted(rollouts) if self.policy.closed_form else ((), ())

        def of_task(params: Tree, rollouts: Any, acted: Any, was: Any) -> tuple[Tensor, Tensor]:
            own, shared = self.initial | params[0], self.shared | params[1]
            losses = []
            for k, data in enumerate(rollouts):
                if k in scored:
                    log_prob = self.log_prob(own, shared, data)
                    losses.append(surrogate(log_prob, acted[k] if acted else log_prob.detach(), data))
                    if entropy:
                        spread = self.call("entropy", shared | own, data.state, data.memory)
                        losses[-1] = losses[-1] - entropy * data.mean(spread)
                own = self.stepped(own, shared, data, self.lr) if k < len(way) else own
            loss = torch.stack(losses).mean()
            if not self.policy.closed_form:
                return loss, torch.zeros_like(loss)
            return loss, rollouts[-1].mean(self.call("divergence", shared | own, rollouts[-1].state, was))

        def objective(params: Tree) -> tuple[Tensor, Tensor]:
            losses, divergences = vmap(of_task, in_dims=(None, 0, 0, 0))(params, rollouts, acted, was)
            return losses.mean(), divergences.mean()

        return objective

    @torch.no_grad()
    def _acted(self, rollouts: Sequence[Trajectories]) -> tuple[tuple[Tensor, ...], Any]:
        """Log-probabilities of the taken actions after each adaptation step, and the last policies' distributions."""
        own, log_probs = self.spread(len(rollouts[0].state)), []
        for k, data in enumerate(rollouts):
            own = self.adapted(own, rollouts[k - 1]) if k else own
            log_probs.append(vmap(lambda p, d: self.log_prob(p, self.shared, d))(own, data))
        return tuple(log_probs), vmap(lambda p, d: self.call("shape", self.shared | p, d.state))(own, rollouts[-1])
