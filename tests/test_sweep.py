"""Sweeps: trials, pruning, the stored preset, and resuming."""

from pathlib import Path

import pytest
import yaml
from hrl_scripts import train
from runs import LINE

from hrl.agents.presets import preset
from hrl.run.sweep import Sweep, SweepConfig, nested
from hrl.types import UserError

LEARNING_RATE = {
    "low.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "high.period": {"low": 5, "high": 20, "step": 5},
}


def test_a_sweep_by_the_command_line_writes_a_preset_that_trains(tmp_path, capsys):
    file = tmp_path / "rates.yaml"
    file.write_text(yaml.safe_dump({"trials": 2, "seeds": 2, "parameters": LEARNING_RATE}))
    command = ["hiro", *LINE, "--log-dir", str(tmp_path), "--total-steps", "400", "--eval-freq", "200"]
    assert train.main([*command, "--sweep", str(file)]) == 0
    out = capsys.readouterr().out
    assert "trial 0:" in out and "trial 1:" in out and "Done. Best: --preset" in out
    folder = tmp_path / "sweeps" / "rates"
    assert len(list((folder / "runs").rglob("config.json"))) == 4  # two trials of two seeds
    best = yaml.safe_load((folder / "preset.yaml").read_text())["GoalLine-v0"]
    assert 1e-4 <= best["low"]["learning_rate"] <= 1e-2 and best["high"]["period"] in (5, 10, 15, 20)
    assert (
        preset("hiro", "tasks:GoalLine-v0", str(folder / "preset.yaml"))["low"]["learning_rate"]
        == best["low"]["learning_rate"]
    )
    # The same command again has nothing left to do; with more trials it goes on from those.
    assert train.main([*command, "--sweep", str(file)]) == 0
    assert "trial" not in capsys.readouterr().out
    file.write_text(yaml.safe_dump({"trials": 3, "seeds": 1, "parameters": LEARNING_RATE}))
    assert train.main([*command, "--sweep", str(file)]) == 0
    assert capsys.readouterr().out.startswith("trial 2:")


def test_trials_below_the_median_are_pruned_and_the_best_is_kept(tmp_path):
    """Success is x at every evaluation; the search sees it and keeps the highest."""
    steps_made: dict[float, int] = {}

    def train_one(values, seed, give_up):
        for steps in range(100, 1001, 100):
            steps_made[values["x"]] = steps
            if give_up(steps, {"eval/success_rate": values["x"] * steps / 1000}):
                break
        return True

    config = SweepConfig({"x": {"low": 0.0, "high": 1.0}}, trials=20)
    assert Sweep(config, tmp_path, "Some-v0", 0, train_one).run()
    assert len(steps_made) == 20 and min(steps_made.values()) < 1000
    best = max(steps_made)
    assert steps_made[best] == 1000
    assert yaml.safe_load((tmp_path / "preset.yaml").read_text()) == {"Some-v0": {"x": best}}


def test_the_value_of_a_trial_is_the_mean_of_its_seeds_and_a_stopped_trial_is_discarded(tmp_path, capsys):
    seen = []

    def train_one(values, seed, give_up):
        seen.append(seed)
        if len(seen) > 4:
            return False  # the user's Ctrl-C
        give_up(100, {"eval/success_rate": 0.2 + 0.4 * seed})
        return True

    config = SweepConfig({"layers": {"choices": [[8], [16, 16]]}}, trials=5, seeds=2, prune=False)
    sweep = Sweep(config, tmp_path, "Some-v0", 0, train_one)
    assert not sweep.run() and seen == [0, 1, 0, 1, 0]
    assert [t.value for t in sweep.study.trials] == [pytest.approx(0.4), pytest.approx(0.4), None]
    assert capsys.readouterr().out.count("0.400") == 2
    assert yaml.safe_load((tmp_path / "preset.yaml").read_text())["Some-v0"]["layers"] in ([8], [16, 16])


def test_dotted_names_are_nested():
    assert nested({"low.learning_rate": 1, "low.gamma": 2, "learning_starts": 3}) == {
        "low": {"learning_rate": 1, "gamma": 2},
        "learning_starts": 3,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trials: 3", "has no parameters"),
        ("parameters: {low.learning_rate: {low: 1}}", "needs either choices, or low and high"),
        ("parameters: {low.learning_rate: {choices: [1], low: 0, high: 1}}", "needs either choices"),
        ("{parameters: {low.learning_rate: {choices: [1]}}, trial: 3}", "Did you mean trials?"),
        ("parameters: [", "cannot be read"),
    ],
)
def test_an_invalid_sweep_raises_an_error(tmp_path, text, sentence):
    file: Path = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        SweepConfig.read(file)


def test_an_unknown_option_of_a_sweep_is_reported(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text("parameters: {low.rate: {low: 0.1, high: 1.0}}")
    assert train.main(["hiro", *LINE, "--log-dir", str(tmp_path), "--sweep", str(file)]) == 2
    assert "no option 'rate'" in capsys.readouterr().err


def test_processes_that_share_a_sweep_draw_different_trials(tmp_path):
    config = SweepConfig({"x": {"low": 0.0, "high": 1.0}}, trials=4, prune=False)
    drawn = []

    def train_one(values, seed, give_up):
        drawn.append(values["x"])
        give_up(1, {"eval/success_rate": 0.0})
        return True

    first, second = (Sweep(config, tmp_path, "Some-v0", 0, train_one) for _ in range(2))
    first.config.trials, second.config.trials = 2, 4
    assert first.run() and second.run()
    assert len(set(drawn)) == 4


def test_an_unknown_metric_is_reported(tmp_path):
    config = SweepConfig({"x": {"low": 0.0, "high": 1.0}}, metric="eval/succes_rate")
    sweep = Sweep(config, tmp_path, "Some-v0", 0, lambda values, seed, give_up: give_up(1, {"eval/success_rate": 0.0}))
    with pytest.raises(UserError, match="must be one of eval/success_rate"):
        sweep.run()
