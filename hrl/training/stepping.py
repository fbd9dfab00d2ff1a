"""A hierarchy in training: a round is one step of every environment."""

from collections.abc import Sequence

import torch

from hrl.hierarchy.hierarchy import RANK_SEED, Hierarchy
from hrl.report.episodes import EpisodeCounter, Finished
from hrl.report.tracking import Tracking
from hrl.run.checkpoint import Checkpoint
from hrl.run.session import Session
from hrl.run.trainer import Trainee
from hrl.state import under
from hrl.stopping import GRACE, Interrupted
from hrl.training.policy import HierarchyPolicy
from hrl.types import BatchedEnv, Observation, UserError


class HierarchyTrainee(Trainee):
    """Acts, steps, observes and learns; learning comes while the environments step, from what was seen before."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv, session: Session) -> None:
        super().__init__(env, session)
        self.agent, self.policy = agent, HierarchyPolicy(agent)
        self.processes, self.stop = session.processes, session.stop
        self.tracking = Tracking(agent.levels, session.run.total_steps)
        self.warnings = self.tracking.warnings
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.obs: Observation | None = None
        if self.processes.size > 1 and not env.resets_within_step:
            raise UserError(
                f"{env.spec.env_id} spends a step on each reset (NEXT_STEP), so that several processes would not count "
                "alike; use its sync or async form."
            )

    @property
    def steps(self) -> int:
        """Environment steps so far, of all processes."""
        return self.agent.steps

    def begin(self) -> None:
        """Begin an episode in every environment, seeded by the run's seed and the steps so far."""
        self.agent.restart()
        self.counter.restart()
        self.obs = None
        seed = self.session.run.seed * 1_000_003 + self.agent.steps + self.processes.rank * RANK_SEED
        generator = torch.Generator().manual_seed(seed)
        with self.stop.interruptible(GRACE):
            self.obs = self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    def round(self, total_steps: int) -> Sequence[Finished]:
        """One step of every environment."""
        if self.obs is None:
            raise Interrupted  # while episodes were to begin
        actions = self.agent.act(self.obs)
        with self.stop.interruptible(GRACE):
            self.env.send(actions)
        self._learn(total_steps)
        with self.stop.interruptible(GRACE):
            step = self.env.receive()
        self.agent.observe(step)
        self.obs = step.obs
        return [self.counter.add(step.reward, step.success, step.terminated | step.truncated, step.active)]

    def _learn(self, total_steps: int) -> None:
        """The updates that are due. A failure in the middle of one leaves nothing to go on from."""
        try:
            self.agent.learn(total_steps, self._in_haste)
        except Exception as error:
            self.whole = isinstance(error, self.session.faults)
            raise

    def _in_haste(self) -> bool:
        """Whether to leave out updates that are due. With other processes, all of them must make the same."""
        return bool(self.stop) and self.processes.size == 1

    def metrics(self) -> dict[str, float]:
        """Every level's scalars, and how its decisions move."""
        self.env.verify()
        metrics = self.agent.pop_metrics()
        return metrics | self.tracking.measure(self.agent.steps) if self.processes.first else metrics

    def truncate_episodes(self) -> None:
        """End every segment and episode as truncated where it stands."""
        if self.obs is not None:
            self.agent.truncate_episodes(self.obs)

    def networks(self) -> dict[str, torch.Tensor]:
        """Every level's networks."""
        return self.agent.network_tensors()

    def state(self) -> Checkpoint:
        """What differs between processes stands under their ranks: the others' replays and random states."""
        first = self.processes.first
        parts = self.processes.gather(({} if first else self.agent.own_tensors(), self.agent.fingerprint()))
        tensors = self.agent.tensors() if first else {}
        for rank, (theirs, _) in enumerate(parts[1:], 1):
            tensors |= {f"rank{rank}.{name}": x for name, x in theirs.items()}
        prints = [fingerprint for _, fingerprint in parts]
        if len(set(prints)) > 1:
            raise AssertionError(f"the networks differ between the processes: {prints}")
        return Checkpoint(tensors, {"fingerprints": prints})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put the agent where the checkpoint was taken."""
        own = under(f"rank{self.processes.rank}.", checkpoint.tensors)
        self.agent.load_tensors(checkpoint.tensors | own)
