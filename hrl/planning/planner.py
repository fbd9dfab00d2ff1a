"""A planner as a policy: it steers a trained level from landmark to landmark, without further training (search on the
replay buffer: Eysenbach, Salakhutdinov, Levine 2019, arXiv:1906.05253).

The level that obeys the planner gets the next landmark on the shortest path to the task's goal, instead of a subgoal or
the task's goal. A hop ends when its landmark is reached. It fails when it takes `patience` times its expected steps;
the landmarks within reach of its end then cost more for the rest of the episode.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hrl.hierarchy.clock import FRESH
from hrl.hierarchy.hierarchy import ActionMode, Hierarchy, Memory
from hrl.planning.exploring import Commanded
from hrl.planning.landmarks import Landmarks
from hrl.training.policy import HierarchyPolicy, PredictState
from hrl.types import BatchedEnv, Observation, Step

FAILED = 10.0
"""Multiple of the longest hop that each failure adds to paths over a landmark."""

MOST = 3.0
"""Maximum expected steps of a single hop, as a multiple of the longest hop."""


@dataclass(frozen=True)
class Plan:
    """The state of planning in N environments."""

    below: Memory
    """The active commands of the levels below the one that obeys the planner."""
    goal: Tensor
    """[N, G] the position of the goal."""
    to_goal: Tensor
    """[N, L] steps from each landmark to it."""
    node: Tensor
    """[N] the landmark of the hop; L for the goal."""
    target: Tensor
    """[N, G] its position."""
    elapsed: Tensor
    """[N] environment steps of the hop so far; FRESH without a current hop."""
    budget: Tensor
    """[N] environment steps after which the hop has failed."""
    extra: Tensor
    """[N, L + 1] steps added for failures in this episode."""
    begun: Tensor
    """[N] whether this is the first step towards this goal."""
    connected: Tensor
    """[N] whether a path of edges led to the goal when the hop started."""


class PlannerPolicy(HierarchyPolicy):
    """Acts deterministically. It is stateless: callers pass its memory in and out."""

    def __init__(
        self, agent: Hierarchy, landmarks: Landmarks, patience: float = 2.0, env: BatchedEnv | None = None
    ) -> None:
        """`agent` consists of the level that obeys the planner and the levels below it. A hop fails after `patience`
        times its expected steps."""
        super().__init__(agent, env)
        self.landmarks, self.distance = landmarks, landmarks.distance
        self.patience = patience

    def start(self, num_envs: int) -> Any:
        """The initial memory, without a plan or active commands."""
        device, size, dim = self.agent.device, len(self.landmarks.state), self.distance.goals.dim
        zeros = lambda *shape: torch.zeros(num_envs, *shape, device=device)  # noqa: E731
        return Plan(
            below=self.agent.initial_state(num_envs), goal=zeros(dim), to_goal=zeros(size),
            node=zeros().long(), target=zeros(dim), elapsed=torch.full((num_envs,), FRESH, device=device),
            budget=zeros(), extra=zeros(size + 1), begun=zeros().bool(), connected=zeros().bool(),
        )  # fmt: skip

    def decide(self, obs: Observation, memory: Plan) -> tuple[Tensor, Plan, list[Tensor]]:
        """Actions [N, A], the memory, and the active landmarks and subgoals [N, G], lowest level first."""
        return self._decide(obs, memory, "greedy")

    def _decide(self, obs: Observation, memory: Plan, how: ActionMode) -> tuple[Tensor, Plan, list[Tensor]]:
        plan = self._planned(obs, memory)
        d = self.agent.decide(Commanded(obs.state, plan.target, obs.mask), plan.below, how)
        pairs = zip(self.agent.commands, d.targets, strict=False)
        places = [place for command, target in pairs if (place := command.place(target)) is not None]
        return d.actions[0], replace(plan, below=d.memory), [*places, plan.target]

    def _planned(self, obs: Observation, memory: Plan) -> Plan:
        """The plan with a new goal where the task's goal changed, and a new hop where there is none."""
        goal = self.landmarks.goal_place(obs.goal)
        anew = (memory.elapsed >= FRESH) & (memory.budget == 0) | (goal != memory.goal).any(-1)
        if bool(anew.any()):
            wide = anew.unsqueeze(-1)
            memory = replace(
                memory,
                goal=torch.where(wide, goal, memory.goal),
                to_goal=torch.where(wide, self.landmarks.to_goal(goal), memory.to_goal),
                extra=memory.extra.masked_fill(wide, 0.0),
                elapsed=memory.elapsed.masked_fill(anew, FRESH),
                begun=memory.begun | anew,
            )
        due = memory.elapsed >= FRESH
        if not bool(due.any()):
            return memory
        route = self.landmarks.route(obs.state, memory.goal, memory.to_goal, memory.extra)
        # Steps are infinite where the level's value is that of never reaching the landmark.
        budget = self.patience * route.steps.clamp(1.0, MOST * self.landmarks.max_hop)
        return replace(
            memory,
            node=torch.where(due, route.node, memory.node),
            target=torch.where(due.unsqueeze(-1), route.place, memory.target),
            elapsed=memory.elapsed.masked_fill(due, 0),
            budget=torch.where(due, budget, memory.budget),
            connected=torch.where(due, route.connected, memory.connected),
            below=[held.dropped(due) for held in memory.below],
        )

    def after(self, memory: Plan, step: Step) -> tuple[Plan, dict[str, Tensor]]:
        """The memory after a step, and metrics of the hops that ended with it and of the goals that started."""
        done = step.terminated | step.truncated
        ticked = replace(memory, below=self.agent.after(memory.below, step), elapsed=memory.elapsed + step.active)
        following, reached, late = self._settled(ticked, step.final.state)
        reached = reached | (step.success & (memory.node == len(self.landmarks.state)))
        ended = ((reached | late) & step.active).float()
        won = reached.float() * ended
        metrics = {
            "hop_success_rate": torch.stack([won, ended]),
            "hop_steps": torch.stack([ticked.elapsed.float(), won]),
            "planned_hop_steps": torch.stack([memory.budget / self.patience, ended]),
            "disconnected_goals": torch.stack([(~memory.connected).float(), (memory.begun & step.active).float()]),
        }
        following = replace(following, begun=torch.zeros_like(memory.begun))
        return self._dropped(following, done | ~step.active), metrics

    def _settled(self, plan: Plan, state: Tensor) -> tuple[Plan, Tensor, Tensor]:
        """The plan without hops that ended in states [N, D], and masks [N] of landmarks reached and of hops failed."""
        active = plan.elapsed < FRESH
        near = self.distance.apart(self.distance.place(state), plan.target) <= self.landmarks.reach
        reached = active & near & (plan.node < len(self.landmarks.state))
        late = active & ~reached & (plan.elapsed >= plan.budget)
        within = self.distance.apart(plan.target.unsqueeze(1), self.landmarks.place) <= self.landmarks.reach
        within = torch.cat([within, (plan.node == len(self.landmarks.state)).unsqueeze(-1)], -1)
        extra = plan.extra + torch.where(within & late.unsqueeze(-1), FAILED * self.landmarks.max_hop, 0.0)
        return replace(plan, extra=extra, elapsed=plan.elapsed.masked_fill(reached | late, FRESH)), reached, late

    def _dropped(self, memory: Plan, where: Tensor) -> Plan:
        """The plan, cleared where an episode ended ([N])."""
        return replace(
            memory,
            elapsed=memory.elapsed.masked_fill(where, FRESH),
            budget=memory.budget.masked_fill(where, 0.0),
            below=super()._dropped(memory.below, where),
        )

    def _following(self, memory: Plan, state: Tensor, how: ActionMode) -> Plan:
        """The plan one environment step later, in states [N, D] of the same episodes."""
        plan = replace(
            memory,
            elapsed=memory.elapsed + 1,
            begun=torch.zeros_like(memory.begun),
            below=super()._following(memory.below, state, how),
        )
        return self._settled(plan, state)[0]

    def _pack(self, memory: Plan) -> PredictState:
        own = (getattr(memory, field.name) for field in fields(memory) if field.name != "below")
        return (*(x.cpu().numpy() for x in own), *super()._pack(memory.below))

    def _unpack(self, state: PredictState) -> Plan:
        names = [field.name for field in fields(Plan) if field.name != "below"]
        own = {name: torch.as_tensor(x, device=self.agent.device) for name, x in zip(names, state, strict=False)}
        return Plan(below=super()._unpack(state[len(names) :]), **own)
