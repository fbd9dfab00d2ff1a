"""A meta-learned policy for evaluations and scripts."""

from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.nested.levels.adaptation import Adaptation, Params
from hrl.policies.policy_gradient import Trajectories
from hrl.report.episodes import Episode, finished
from hrl.report.evaluation import Environments, Evaluation, Watch, interval
from hrl.training.actor import Actor
from hrl.training.collecting import uniform_noise


class AdaptationSettings(Protocol):
    """Options of the adaptation to a new task in evaluation."""

    episodes: int
    inner_learning_rate: float
    eval_steps: int
    eval_shrink: float
    eval_explore: bool


class AdaptingLearner(Protocol):
    """The interface of a learner with a policy that adapts to tasks."""

    adaptation: Adaptation
    device: torch.device

    @property
    def settings(self) -> AdaptationSettings:
        """How the policy adapts in evaluations."""

    def collect(
        self, env: Any, tasks: Tensor, own: Params, generator: torch.Generator, explore: bool = True,
        watch: Watch | None = None,
    ) -> Trajectories:  # fmt: skip
        """Collect one episode of every environment. Episodes of the same task are adjacent."""


class AdaptingPolicy(Actor):
    """A meta-learned policy. Evaluations adapt it to held-out tasks; otherwise it acts without adaptation."""

    def __init__(self, learner: AdaptingLearner) -> None:
        adaptation = learner.adaptation
        generator = torch.Generator(learner.device).manual_seed(0)
        noise = lambda count: uniform_noise(count, adaptation.policy.noise_dim, generator)  # noqa: E731
        super().__init__(adaptation.policy, lambda: adaptation.shared | adaptation.initial, learner.device, noise)
        self.learner = learner

    def evaluate(self, environments: Environments, tasks: int, seed: int, watch: Watch | None = None) -> Evaluation:
        """Adapt to `tasks` held-out tasks. The result's episodes are those after the last step, with the most likely
        actions unless `eval_explore`.

        The rates are `return_after_k`, the mean over tasks after k steps; `return_after_k_error`, half the width of its
        95 % interval; and `sampled_return_after_k`, the return of the exploring episodes that the next step uses.
        `watch` is called in the evaluated episodes, before adaptation and after each step.
        """
        c, learner = self.learner.settings, self.learner
        generator = torch.Generator(learner.device).manual_seed(seed)
        with environments(tasks * c.episodes) as env:
            return self._evaluate(env, tasks, generator, watch)

    def _evaluate(self, env: Any, tasks: int, generator: torch.Generator, watch: Watch | None) -> Evaluation:
        learner, c = self.learner, self.learner.settings
        drawn = env.sample_tasks(tasks, generator, held_out=True)
        own = learner.adaptation.spread(tasks)
        data = learner.collect(env, drawn, own, generator)
        rates: dict[str, float] = {}
        for k in range(c.eval_steps + 1):
            if k:
                own = learner.adaptation.adapted(own, data, c.inner_learning_rate * (1 if k == 1 else c.eval_shrink))
                data = learner.collect(env, drawn, own, generator)
            shown = learner.collect(env, drawn, own, generator, explore=c.eval_explore, watch=watch)
            returns = shown.returns().tolist()
            rates[f"return_after_{k}"] = sum(returns) / tasks
            rates[f"sampled_return_after_{k}"] = float(data.returns().mean())
            if bounds := interval(returns, proportion=False):
                rates[f"return_after_{k}_error"] = (bounds[1] - bounds[0]) / 2
        episodes = [
            Episode(i, reward, int(length), bool(reached), bool(final))
            for i, (reward, length, reached, final) in enumerate(finished(shown).values.tolist())
        ]
        return Evaluation(episodes, [], rates)
