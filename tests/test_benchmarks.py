"""The commands of the benchmarks are valid: their options exist, and so do their values."""

import signal
import sys

import pytest
import torch
from runs import ROOT

from hrl.cli import training
from hrl.hierarchy.config import LevelConfig

handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
sys.path.insert(0, str(ROOT / "benchmarks"))
import adaptation  # noqa: E402
import ant_cases  # noqa: E402
import cases  # noqa: E402
import continual  # noqa: E402
import diayn  # noqa: E402
import episodes  # noqa: E402
import offline  # noqa: E402
import options  # noqa: E402
import pairs  # noqa: E402
import planning  # noqa: E402
import race  # noqa: E402
import reward  # noqa: E402
import scale  # noqa: E402
import tuning  # noqa: E402
import values  # noqa: E402

for number, handler in handlers.items():  # the benchmarks pass a stop on to their runs
    signal.signal(number, handler)

LINES = {
    *(f"{case.arguments} --env {case.env}" for case in [*cases.CASES, *ant_cases.ANTS]),
    *(case.arguments for case in adaptation.CASES.values()),
    *(f"{agent} --env {env}" for agent, env in episodes.ROWS.values()),
    *(f"lirpg --env hrl/Track-v0 {words}" for words in reward.CASES.values()),
    *(f"modac --env hrl/Taxi-v0 {words}" for _, words in options.CASES.values()),
    *(f"{tuning.LINE} {words}" for words in tuning.CASES.values()),
    *(f"{offline.line(maze, kind)} --dataset FILE.npz" for maze in offline.TRAINED for kind in ("navigate", "stitch")),
    *(case.train for case in planning.CASES.values()),
    *diayn.CASES.values(),
    race.OURS.format("UMaze", 1000),
    race.PEER.format("UMaze", 1000, 1000),
    " ".join(scale.words(16_384, 0, "cpu")),
    f"hiro --env {continual.ENV} {' '.join(continual.following(ROOT, 'ewc', 1.0))}",
    *(f"hiro --env {pairs.TASKS[task][0]} {' '.join(pairs.learners(high, low))}"
      for low, task in pairs.LOW.items() for high in pairs.HIGH),
}  # fmt: skip


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_benchmarks_command_is_understood(line):
    algorithm, *words = line.split()
    agent = training.resolved(algorithm, words)[0].agent
    getattr(agent, "check", lambda *_: None)(*([""] if isinstance(agent, LevelConfig) else []))


def test_returns_repeat_the_last_reward_after_a_truncation_and_nothing_after_a_termination():
    no, yes = torch.tensor([False, False]), torch.tensor([True, True])
    first = (torch.tensor([5.0, 6.0]), torch.tensor([1.0, 1.0]), no, no, no)
    last = (
        torch.tensor([7.0, 8.0]),
        torch.tensor([2.0, 2.0]),
        torch.tensor([False, True]),
        yes,
        torch.tensor([True, False]),
    )
    one, other = values.episodes([first, last], 0.5)
    # 2 + .5 * 2 / (1 - .5) = 4 and 1 + .5 * 4 = 3; then 2 and 1 + .5 * 2 = 2
    assert one[0] and one[1].tolist() == [5.0, 7.0] and one[2].tolist() == [3.0, 4.0]
    assert not other[0] and other[1].tolist() == [6.0, 8.0] and other[2].tolist() == [2.0, 2.0]
