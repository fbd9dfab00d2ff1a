"""The settings that TensorBoard's HParams tab compares, with the same columns for every algorithm."""

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "learning_rate": "learning rate", "gamma": "discount", "batch_size": "batch size", "hidden": "hidden layers",
    "learner": "learner", "train_freq": "steps per update",
}  # fmt: skip
"""Options of a level and their column names."""
NONE = "-"


def comparable(algorithm: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Readable names and values: algorithm, environment and run, then each level's main settings.

    The settings of an agent without levels appear as those of the low level. A dash marks settings that an algorithm
    does not have.
    """
    env, run, agent = config["env"], config["run"], config["agent"]
    low = agent["low"] if isinstance(agent.get("low"), Mapping) else agent
    high = agent["high"] if isinstance(agent.get("high"), Mapping) else {}
    values: dict[str, Any] = {
        "algorithm": algorithm, "environment": env["env"], "seed": run["seed"], "environments": env["num_envs"],
        "total steps": run["total_steps"],
    }  # fmt: skip
    for name, level in (("low", low), ("high", high)):
        values |= {f"{name}: {words}": _simple(level.get(option)) for option, words in COLUMNS.items()}
    return values | {"high: period": _simple(high.get("period"))}


def _simple(value: Any) -> Any:
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return value if isinstance(value, bool | int | float | str) else str(value)
