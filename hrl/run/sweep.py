"""Hyperparameter search with Optuna: trials of several seeds, pruning of bad trials, and resuming.

A sweep is a YAML file:

    trials: 30                      # in total, over all processes that share the sweep
    seeds: 2                        # runs per trial; the trial's value is their mean
    metric: eval/success_rate       # of the last evaluation
    prune: true                     # give up trials below the median at the same evaluation
    parameters:
      low.learning_rate: {low: 1.0e-4, high: 3.0e-3, log: true}
      high.period: {low: 10, high: 40, step: 5}
      low.hidden: {choices: [[64, 64], [128, 128]]}
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hrl.report.display import print_line
from hrl.run.config import updated
from hrl.types import Diverged, UserError

if TYPE_CHECKING:
    import optuna

GiveUp = Callable[[int, dict[str, float]], bool]
"""(environment steps, scalars of an evaluation) -> whether to stop the run early."""
TrainOne = Callable[[dict[str, Any], int, GiveUp], bool]
"""(values, seed, give_up) -> True if the run ended or was pruned; False if the user stopped it. Raises Diverged if the
parameters became NaN or infinite."""
DIVERGED = -math.inf
"""The value of a trial with a run that diverged."""


@dataclass
class SweepConfig:
    """The options of a sweep."""

    parameters: dict[str, Any] = field(default_factory=dict)
    """Option names and their ranges: low and high (with log or step), or choices."""
    trials: int = 20
    seeds: int = 1
    metric: str = "eval/success_rate"
    prune: bool = True

    @classmethod
    def read(cls, path: Path) -> "SweepConfig":
        """Read a YAML file. Raises UserError if it is invalid."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"The sweep {path} cannot be read: {error}") from error
        if not isinstance(values, dict) or not values.get("parameters"):
            raise UserError(
                f"The sweep {path} has no parameters: add some, as in parameters: {{low.learning_rate: …}}."
            )
        config = updated(cls(), values, str(path))
        for name, given in config.parameters.items():
            known = isinstance(given, dict) and set(given) <= {"low", "high", "log", "step", "choices"}
            if not known or ("choices" in given) == ({"low", "high"} <= set(given)):
                raise UserError(f"{path}: {name} needs either choices, or low and high, optionally with log or step.")
        if config.trials < 1 or config.seeds < 1:
            raise UserError(f"{path}: trials and seeds must be at least 1.")
        return config


class Sweep:
    """A study in a folder that several processes can share. It contains journal.log, and the best values in
    preset.yaml."""

    def __init__(self, config: SweepConfig, folder: Path, env_id: str, seed: int, train: TrainOne) -> None:
        self.config, self.folder, self.env_id, self.train = config, folder, env_id, train
        optuna = _optuna()
        folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
        )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if config.prune else optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            study_name="sweep", storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
        )
        self.seed = seed

    def run(self) -> bool:
        """Run the remaining trials. Returns False if the user stopped it; the current trial is then discarded."""
        state = _optuna().trial.TrialState
        while len(self.study.get_trials(states=(state.COMPLETE, state.PRUNED))) < self.config.trials:
            trial = self.study.ask()
            # Use one seed per trial, so that processes that share or resume a sweep sample different values.
            self.study.sampler = _optuna().samplers.TPESampler(seed=self.seed + trial.number)
            values = {name: _suggested(trial, name, given) for name, given in self.config.parameters.items()}
            value, pruned = self._value(trial, values)
            if value is None:
                self.study.tell(trial, state=state.FAIL)
                return False
            self.study.tell(trial, state=state.PRUNED) if pruned else self.study.tell(trial, value)
            shown = ", ".join(f"{name} {_short(x)}" for name, x in values.items())
            outcome = "diverged" if value == DIVERGED else f"{value:.3f}{' (given up)' if pruned else ''}"
            print_line(f"trial {trial.number}: {outcome}; {shown}")
            self._write_preset()
        return True

    def _value(self, trial: "optuna.Trial", values: dict[str, Any]) -> tuple[float | None, bool]:
        """The mean of the metric over seeds (None if the user stopped the trial), and whether the trial was pruned."""
        finished: list[float] = []
        reached: list[int] = []
        latest, pruned, first = float("-inf"), False, 0

        def give_up(steps: int, scalars: dict[str, float]) -> bool:
            nonlocal latest, pruned
            if self.config.metric not in scalars:
                raise UserError(f"A sweep's metric must be one of {', '.join(scalars)}, not {self.config.metric!r}.")
            latest = scalars[self.config.metric]
            trial.report((sum(finished) + latest) / (len(finished) + 1), first + steps)
            pruned = trial.should_prune()
            reached.append(first + steps)
            return pruned

        for seed in range(self.config.seeds):
            try:
                if not self.train(nested(values), seed, give_up):
                    return None, False
            except Diverged:
                return DIVERGED, True
            finished.append(latest)
            if pruned:
                break
            first = reached[-1] if reached else 0
        return sum(finished) / len(finished), pruned

    def _write_preset(self) -> None:
        """Write the best values so far as a preset for --preset."""
        state = _optuna().trial.TrialState
        if not self.study.get_trials(states=(state.COMPLETE,)):
            return
        values = {name: self._chosen(name, x) for name, x in self.study.best_params.items()}
        text = f"# {self.config.metric} {self.study.best_value:.3f}, trial {self.study.best_trial.number}\n"
        beside = self.folder / ".preset.writing"
        beside.write_text(
            text + yaml.safe_dump({self.env_id: nested(values)}, default_flow_style=None), encoding="utf-8"
        )
        beside.replace(self.folder / "preset.yaml")

    def _chosen(self, name: str, stored: Any) -> Any:
        return json.loads(stored) if "choices" in self.config.parameters[name] else stored


def _suggested(trial: "optuna.Trial", name: str, given: dict[str, Any]) -> Any:
    if "choices" in given:  # as JSON, because the journal cannot store lists
        return json.loads(trial.suggest_categorical(name, [json.dumps(choice) for choice in given["choices"]]))
    low, high, more = given["low"], given["high"], {k: given[k] for k in ("log", "step") if k in given}
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, **more)
    return trial.suggest_float(name, float(low), float(high), **more)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values with dotted names as nested mappings."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = result
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return result


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise UserError("Sweeps need Optuna: pip install 'nested-hrl[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
