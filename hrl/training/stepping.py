"""Training of a hierarchy. A round is one step of every environment."""

from collections.abc import Callable, Sequence

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
    """Acts, steps, observes and learns. It learns from earlier observations while the environments step."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv, session: Session) -> None:
        super().__init__(env, session)
        self.agent, self.policy = agent, HierarchyPolicy(agent, env)
        self.processes, self.stop = session.processes, session.stop
        self.tracking = Tracking(agent.levels, session.run.total_steps)
        self.warnings = self.tracking.warnings
        self._parameters = agent.network_parameters()  # they change in place
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.obs: Observation | None = None
        if self.processes.size > 1 and not env.resets_within_step:
            raise UserError(
                f"{env.spec.env_id} uses a step for each reset (NEXT_STEP), so several processes would count "
                "different steps: use --vectorization sync or async."
            )

    @property
    def learned(self) -> Hierarchy:
        """The agent."""
        return self.agent

    @property
    def steps(self) -> int:
        """Environment steps so far, of all processes together."""
        return self.agent.steps

    def begin(self) -> None:
        """Start an episode in every environment, seeded with the run's seed, the steps so far and the rank."""
        self.agent.restart()
        self.counter.restart()
        self.obs = None
        seed = self.session.run.seed * 1_000_003 + self.agent.steps + self.processes.rank * RANK_SEED
        generator = torch.Generator().manual_seed(seed)
        with self.stop.interruptible(GRACE):
            self.obs = self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Take one step in every environment, and learn from earlier ones meanwhile."""
        return self.collect(lambda: self._learn(total_steps))

    def collect(self, meanwhile: Callable[[], None] = lambda: None) -> Sequence[Finished]:
        """Take one step in every environment. `meanwhile` is called while they step."""
        if self.obs is None:
            raise Interrupted  # `begin` was interrupted
        actions = self.agent.act(self.obs)
        with self.stop.interruptible(GRACE):
            self.env.send(actions)
        meanwhile()
        with self.stop.interruptible(GRACE):
            step = self.env.receive()
        self.agent.observe(step)
        self.obs = step.obs
        return [self.counter.add(step.reward, step.success, step.terminated | step.truncated, step.active)]

    def _learn(self, total_steps: int) -> None:
        """Make the updates that are due. After a failure during an update, `whole` is False."""
        try:
            self.agent.learn(total_steps, self._in_haste)
        except Exception as error:
            self.whole = isinstance(error, self.session.faults)
            raise

    def _in_haste(self) -> bool:
        """Whether to skip the due updates. Always False with several processes, which must make the same updates."""
        return bool(self.stop) and self.processes.size == 1

    def metrics(self) -> dict[str, float]:
        """Every level's scalars, and the drift of its decisions."""
        self.env.verify()
        metrics = self.agent.pop_metrics()
        return metrics | self.tracking.measure(self.agent.steps) if self.processes.first else metrics

    def truncate_episodes(self) -> None:
        """Truncate every open segment and episode."""
        if self.obs is not None:
            self.agent.truncate_episodes(self.obs)

    def networks(self) -> dict[str, torch.Tensor]:
        """The tensors of every level's networks."""
        return self.agent.network_tensors()

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters of every level's networks, without statistics and landmarks."""
        return self._parameters

    def state(self) -> Checkpoint:
        """The state for resuming. It contains the replays, random states and persistent states of environments of the
        other processes under their ranks."""
        first = self.processes.first
        lasting = {f"env.{name}": x.cpu().clone() for name, x in self.env.lasting().items()}
        own = {} if first else self.agent.own_tensors() | lasting
        parts = self.processes.gather((own, self.agent.fingerprint()))
        tensors = self.agent.tensors() | lasting if first else {}
        for rank, (theirs, _) in enumerate(parts[1:], 1):
            tensors |= {f"rank{rank}.{name}": x for name, x in theirs.items()}
        prints = [fingerprint for _, fingerprint in parts]
        if len(set(prints)) > 1:
            raise AssertionError(f"the networks differ between the processes: {prints}")
        return Checkpoint(tensors, {"fingerprints": prints})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the state of agent and environments from a checkpoint."""
        own = under(f"rank{self.processes.rank}.", checkpoint.tensors)
        self.agent.load_tensors(checkpoint.tensors | own)
        for name, x in self.env.lasting().items():
            x.copy_((checkpoint.tensors | own)[f"env.{name}"])
