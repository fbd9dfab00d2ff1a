"""A planner as a policy. It directs a trained level from landmark to landmark, without further training (search on the
replay buffer: Eysenbach, Salakhutdinov, Levine 2019, arXiv:1906.05253).

The level that obeys the planner gets the next landmark on the shortest path to the task's goal, instead of a subgoal or
the task's goal. A hop ends when its landmark is reached. It fails when it takes `patience` times its expected steps.
The landmarks near its end then cost more for the rest of the episode.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hrl.hierarchy.clock import FRESH
from hrl.hierarchy.stack import ActionMode
from hrl.planning.exploring import Commanded
from hrl.planning.landmarks import Landmarks
from hrl.training.predicting import PredictingPolicy, PredictState
from hrl.types import BatchedEnv, Observation, Step, UserError

FAILED = 10.0
"""Multiple of the longest hop that each failure adds to paths over a landmark."""

MOST = 3.0
"""Maximum expected steps of a single hop, as a multiple of the longest hop."""


@dataclass(frozen=True)
class Plan:
    """The state of planning in N environments."""

    below: Any
    """The memory of the policy that obeys the planner, such as the active commands of its lower levels."""
    goal: Tensor
    """[N, G] the position of the goal."""
    to_goal: Tensor
    """[N, L] steps from each landmark to the goal."""
    node: Tensor
    """[N] the landmark at the end of the hop; L for the goal."""
    target: Tensor
    """[N, G] its position."""
    elapsed: Tensor
    """[N] environment steps of the hop so far; FRESH without a current hop."""
    budget: Tensor
    """[N] environment steps after which the hop has failed."""
    extra: Tensor
    """[N, L + 1] steps added for failures in this episode."""
    first_step: Tensor
    """[N] whether this is the first step towards this goal."""
    connected: Tensor
    """[N] whether a path of edges led to the goal when the hop started."""


class PlannerPolicy(PredictingPolicy):
    """Acts deterministically. It has no state: all memory is passed in and out."""

    def __init__(
        self, policy: PredictingPolicy, landmarks: Landmarks, patience: float = 2.0, env: BatchedEnv | None = None
    ) -> None:
        """`policy` obeys the planner: its goals are landmarks. A hop fails after `patience` times its expected
        steps."""
        super().__init__(policy.device, env)
        self.policy, self.landmarks, self.distance = policy, landmarks, landmarks.distance
        self.patience = patience

    def select_task(self, task: int) -> None:
        """Select one of the learned tasks. Raises UserError if the policy has no such task."""
        if not hasattr(self.policy, "select_task"):
            raise UserError("--task selects one of several tasks learned in sequence, but this run learned only one.")
        self.policy.select_task(task)

    def start(self, num_envs: int) -> Any:
        """No plan, and no active commands."""
        device, size, dim = self.device, len(self.landmarks.state), self.distance.goals.dim
        zeros = lambda *shape: torch.zeros(num_envs, *shape, device=device)  # noqa: E731
        return Plan(
            below=self.policy.start(num_envs), goal=zeros(dim), to_goal=zeros(size),
            node=zeros().long(), target=zeros(dim), elapsed=torch.full((num_envs,), FRESH, device=device),
            budget=zeros(), extra=zeros(size + 1), first_step=zeros().bool(), connected=zeros().bool(),
        )  # fmt: skip

    def act(self, obs: Observation, memory: Plan, how: ActionMode) -> tuple[Tensor, Plan, list[Tensor]]:
        """Actions [N, A], the memory, and the active subgoals and landmarks [N, G], lowest level first."""
        plan = self._planned(obs, memory)
        action, below, places = self.policy.act(Commanded(obs.state, plan.target, obs.mask), plan.below, how)
        return action, replace(plan, below=below), [*places, plan.target]

    def place(self, state: Tensor) -> Tensor | None:
        """Positions [N, G] of states [N, D] in the goal space of the policy that obeys the planner."""
        return self.policy.place(state)

    def _planned(self, obs: Observation, memory: Plan) -> Plan:
        """The plan, with a new goal where the task's goal changed, and a new hop where none is active."""
        goal = self.landmarks.goal_place(obs.goal)
        new_goal = (memory.elapsed >= FRESH) & (memory.budget == 0) | (goal != memory.goal).any(-1)
        if bool(new_goal.any()):
            wide = new_goal.unsqueeze(-1)
            memory = replace(
                memory,
                goal=torch.where(wide, goal, memory.goal),
                to_goal=torch.where(wide, self.landmarks.to_goal(goal), memory.to_goal),
                extra=memory.extra.masked_fill(wide, 0.0),
                elapsed=memory.elapsed.masked_fill(new_goal, FRESH),
                first_step=memory.first_step | new_goal,
            )
        due = memory.elapsed >= FRESH
        if not bool(due.any()):
            return memory
        route = self.landmarks.route(obs.state, memory.goal, memory.to_goal, memory.extra)
        # Steps are infinite where the level's value equals the value of never reaching the landmark.
        budget = self.patience * torch.minimum(route.steps.clamp_min(1.0), MOST * self.landmarks.max_hop)
        return replace(
            memory,
            node=torch.where(due, route.node, memory.node),
            target=torch.where(due.unsqueeze(-1), route.place, memory.target),
            elapsed=memory.elapsed.masked_fill(due, 0),
            budget=torch.where(due, budget, memory.budget),
            connected=torch.where(due, route.connected, memory.connected),
            below=self.policy.restarted(memory.below, due),
        )

    def after(self, memory: Plan, step: Step) -> tuple[Plan, dict[str, Tensor]]:
        """The memory after a step, and metrics of the hops that ended with it and of the goals that started."""
        done = step.terminated | step.truncated
        ticked = replace(memory, below=self.policy.after(memory.below, step)[0], elapsed=memory.elapsed + step.active)
        following, reached, late = self._settled(ticked, step.final.state)
        reached = reached | (step.success & (memory.node == len(self.landmarks.state)))
        ended = ((reached | late) & step.active).float()
        won = reached.float() * ended
        metrics = {
            "hop_success_rate": torch.stack([won, ended]),
            "hop_steps": torch.stack([ticked.elapsed.float(), won]),
            "planned_hop_steps": torch.stack([memory.budget / self.patience, ended]),
            "disconnected_goals": torch.stack([(~memory.connected).float(), (memory.first_step & step.active).float()]),
        }
        following = replace(following, first_step=torch.zeros_like(memory.first_step))
        return self.restarted(following, done | ~step.active), metrics

    def _settled(self, plan: Plan, state: Tensor) -> tuple[Plan, Tensor, Tensor]:
        """The plan without hops that ended in states [N, D], and masks [N] of reached landmarks and of failed hops."""
        active = plan.elapsed < FRESH
        near = self.distance.apart(self.distance.place(state), plan.target) <= self.landmarks.reach
        reached = active & near & (plan.node < len(self.landmarks.state))
        late = active & ~reached & (plan.elapsed >= plan.budget)
        within = self.distance.apart(plan.target.unsqueeze(1), self.landmarks.place) <= self.landmarks.reach
        within = torch.cat([within, (plan.node == len(self.landmarks.state)).unsqueeze(-1)], -1)
        extra = plan.extra + torch.where(within & late.unsqueeze(-1), FAILED * self.landmarks.max_hop, 0.0)
        return replace(plan, extra=extra, elapsed=plan.elapsed.masked_fill(reached | late, FRESH)), reached, late

    def restarted(self, memory: Plan, where: Tensor) -> Plan:
        """The plan, cleared where [N] an episode ended."""
        return replace(
            memory,
            elapsed=memory.elapsed.masked_fill(where, FRESH),
            budget=memory.budget.masked_fill(where, 0.0),
            below=self.policy.restarted(memory.below, where),
        )

    def following(self, memory: Plan, state: Tensor, how: ActionMode) -> Plan:
        """The plan one environment step later, in states [N, D] of the same episodes."""
        plan = replace(
            memory,
            elapsed=memory.elapsed + 1,
            first_step=torch.zeros_like(memory.first_step),
            below=self.policy.following(memory.below, state, how),
        )
        return self._settled(plan, state)[0]

    def pack(self, memory: Plan) -> PredictState:
        """The plan as arrays."""
        own = (getattr(memory, field.name) for field in fields(memory) if field.name != "below")
        return (*(x.cpu().numpy() for x in own), *self.policy.pack(memory.below))

    def unpack(self, state: PredictState) -> Plan:
        """The plan that `pack` converted."""
        names = [field.name for field in fields(Plan) if field.name != "below"]
        own = {name: torch.as_tensor(x, device=self.device) for name, x in zip(names, state, strict=False)}
        return Plan(below=self.policy.unpack(state[len(names) :]), **own)
