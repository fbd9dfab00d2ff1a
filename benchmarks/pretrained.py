"""Pretrained policies of the package: trains them, reduces their checkpoints, evaluates them, and writes their cards.

    python benchmarks/pretrained.py                                       # all of them
    python benchmarks/pretrained.py --policies PointMaze_UMaze-v3/hiro    # one of them; about two minutes
    python benchmarks/pretrained.py --policies                            # none: only print the table

A finished run of the same command in --log-dir is reused. A policy is the best checkpoint of its run (the last one
without evaluations): networks in half precision, and a sample of the visited states as landmarks for `--planner graph`.
The card in its folder has the scores of the reduced policy, of the planner over it, and of random actions, in the same
episodes.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from running import command
from torch import Tensor

import hrl
from hrl.api.sessions import Parts, make_session
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.memory.dataset import trajectories_of
from hrl.pretrained import FOLDER, slimmed
from hrl.report.evaluation import Evaluation
from hrl.run.checkpoint import Checkpoints, save
from hrl.run.folder import RunFolder
from hrl.spaces import random_actions
from hrl.types import Observation, Spec, Step

POLICIES = {
    "PointMaze_UMaze-v3/hiro": "hiro --env PointMaze_UMaze-v3",
    "PointMaze_Medium-v3/hiro": "hiro --env PointMaze_Medium-v3",
    "PointMaze_Large-v3/hiro": "hiro --env PointMaze_Large-v3 --eval-freq 0 --save-freq 0",
    "hrl-AntMaze-v0/hiro": "hiro --env hrl/AntMaze-v0",
    "hrl-KeyDoor-v0/hdqn": "hdqn --env hrl/KeyDoor-v0 --total-steps 40000 --eval-freq 10000",
}
"""The training options of each policy, by its name below `pretrained/`."""
UNPLANNED = ("hrl-KeyDoor-v0/hdqn",)
"""Policies without a level that obeys positions, which a planner needs."""
STATES = 40_000
"""Maximum number of states in a policy's sample."""
BYTES = 240_000
"""Maximum number of bytes of a policy's sample."""
SCORES = ("success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length")
PLANNED = ("hop_success_rate", "landmarks", "disconnected_goals")


@dataclass
class Options:
    """Make pretrained policies."""

    policies: tuple[str, ...] = tuple(POLICIES)
    """Names below `pretrained/`."""
    log_dir: Path = Path("runs/pretrained")
    """Folder of the runs."""
    run: Path | None = None
    """Use this run for a single policy. The run may have been stopped early."""
    episodes: int = 100
    """Episodes of each evaluation."""
    cards: bool = False
    """Evaluate the policies that the package has, without training, and write their cards."""


def main() -> None:
    """Make each policy, and print its card."""
    options = tyro.cli(Options)
    if options.run and len(options.policies) != 1:
        raise SystemExit("--run is the run of a single policy: name it with --policies.")
    for name in options.policies:
        if options.cards:
            (FOLDER / name / "card.json").write_text(renewed(name, options.episodes))
            continue
        run = RunFolder.existing(options.run) if options.run else finished(name, options.log_dir)
        folder = slim(name, run)
        card = make_card(name, folder, options.episodes)
        if not run.finished:
            card["stopped_after"] = Checkpoints(run.checkpoints).steps
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{name}: {size / 1e6:.2f} MB, {json.dumps(card)}", flush=True)
    print_table()


def renewed(name: str, episodes: int) -> str:
    """A new card of a policy of the package, with the origin that the old one states."""
    old = json.loads((FOLDER / name / "card.json").read_text())
    kept = {key: old[key] for key in ("revision", "stopped_after") if key in old}
    return json.dumps(make_card(name, FOLDER / name, episodes) | kept, indent=2) + "\n"


def print_table() -> None:
    """Print the cards of all pretrained policies as a Markdown table."""
    print("| policy | steps | success, final step [95 %] | with the graph planner | random actions | MB | date |")
    print("|---" * 7 + "|")
    for name, card in hrl.list_pretrained().items():
        size = sum(file.stat().st_size for file in FOLDER.parent.joinpath(name).rglob("*") if file.is_file())
        rates = [success(card.get(key, {})) for key in ("graph_planner", "random_actions")]
        cells = [f"`{name}`", f"{card['steps']:,}", success(card), *rates, f"{size / 1e6:.2f}", card["date"]]
        print(f"| {' | '.join(cells)} |")


def success(scores: dict[str, Any]) -> str:
    """A rate of success with its interval; empty without one."""
    if "success_rate_final" not in scores:
        return ""
    low, high = scores["success_rate_final_interval"]
    return f"{scores['success_rate_final']:.2f} [{low:.2f}, {high:.2f}]"


def finished(name: str, log_dir: Path) -> RunFolder:
    """The newest finished run of a policy. Trains one if there is none."""
    for _ in range(2):
        runs = [RunFolder.existing(path) for path in sorted((log_dir / name).glob("*")) if path.is_dir()]
        if done := [run for run in runs if run.finished]:
            return done[-1]
        command("train.py", *POLICIES[name].split(), "--log-dir", str(log_dir))
    raise SystemExit(f"The training of {name} did not finish.")


def slim(name: str, run: RunFolder) -> Path:
    """Write the folder of a policy, from the best checkpoint of its run and states of its replay."""
    target, parts = FOLDER / name, Parts.stored(run)
    shutil.rmtree(target, ignore_errors=True)
    (target / "checkpoints").mkdir(parents=True)
    best = Checkpoints(run.checkpoints).best()
    agent: Hierarchy = parts.agent.restored(make_session(parts, run))
    agent.load_networks(best.tensors)
    state, final = sample(agent, np.random.default_rng(parts.run.seed))
    small = slimmed(agent.network_tensors(), best.steps, state, final)
    save(target / "checkpoints" / f"step-{best.steps:012d}", small)
    content = run.read_config() | {"command": f"train.py {POLICIES[name]}"}
    content["config"]["run"] |= {"log_dir": "runs", "device": "auto"}
    RunFolder(target).write(content)
    shutil.copyfile(run.path / "progress.csv", target / "progress.csv")
    return target


def sample(agent: Hierarchy, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Whole episodes of the replay in random order: states [R, D], and [R] whether each is the last of its episode."""
    state, _, final = trajectories_of(agent.levels[0].memory, "the run")
    most = min(STATES, BYTES // (2 * state.shape[-1]))
    ends = np.flatnonzero(final) + 1
    starts = np.r_[0, ends[:-1]]
    rows: list[np.ndarray] = []
    for i in rng.permutation(len(ends)):
        if ends[i] - starts[i] >= 2 and sum(map(len, rows)) + ends[i] - starts[i] <= most:
            rows.append(np.arange(starts[i], ends[i]))
    chosen = np.concatenate(rows)
    return torch.as_tensor(state[chosen]), torch.as_tensor(final[chosen])


def make_card(name: str, folder: Path, episodes: int) -> dict[str, Any]:
    """The card of a policy."""
    run = hrl.load(folder)
    result = run.evaluate(episodes).summary()
    card = {
        "task": run.parts.env.env, "agent": run.algorithm, "steps": run.steps, "seed": run.parts.run.seed,
        "episodes": episodes, **scores(result, SCORES), "random_actions": scores(of_chance(folder, episodes), SCORES),
    }  # fmt: skip
    if name not in UNPLANNED:
        planned = command("evaluate.py", str(folder), "--planner", "graph", "--json", "--episodes", str(episodes))
        card["graph_planner"] = scores(json.loads(planned), (*SCORES, *PLANNED))
    return card | {
        "revision": run.folder.read_config()["git"],
        "command": f"python train.py {POLICIES[name]}",
        "made_by": f"python benchmarks/pretrained.py --policies {name}",
        "date": time.strftime("%Y-%m-%d"),
    }


def scores(summary: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """These numbers of an evaluation, each with its 95 % interval if it has one, rounded."""
    chosen = {name: round(summary[name], 4) for name in names if name in summary}
    bounds = {f"{name}_interval": summary.get(f"{name}_interval") for name in chosen}
    return chosen | {name: [round(x, 4) for x in pair] for name, pair in bounds.items() if pair}


class RandomPolicy:
    """Uniformly random actions."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.generator = spec, torch.Generator().manual_seed(0)

    def start(self, num_envs: int) -> None:
        """No memory."""

    def decide(self, obs: Observation, memory: None, deterministic: bool = True) -> tuple[Tensor, None, list[Tensor]]:
        """Random actions [N, A]."""
        return random_actions(self.spec.actions, len(obs.state), self.generator, torch.device("cpu")), None, []

    def place(self, state: Tensor) -> None:
        """No goal space."""

    def after(self, memory: None, step: Step) -> tuple[None, dict[str, Tensor]]:
        """No memory, and no metrics."""
        return None, {}


def of_chance(folder: Path, episodes: int) -> dict[str, Any]:
    """The summary of random actions on the policy's task."""
    run = RunFolder(folder)
    parts = Parts.stored(run)
    parts.run.eval_env = None
    session = make_session(parts, run)
    env = session.make_env(1)
    env.close()
    result: Evaluation = session.evaluate(RandomPolicy(env.spec), episodes)
    return result.summary()


if __name__ == "__main__":
    main()
