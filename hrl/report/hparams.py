"""The settings by which TensorBoard's HParams tab compares runs: the same columns for every algorithm."""

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "learning_rate": "learning rate", "gamma": "discount", "batch_size": "batch size", "hidden": "hidden layers",
    "learner": "learner", "train_freq": "steps per update",
}  # fmt: skip
"""Options of a level, and what they are called."""
NONE = "-"


def comparable(algorithm: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Readable names and values: what is trained on what, then each level's main settings.

    An agent without levels has its settings as the low level's; what an algorithm does not have is a dash.
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
