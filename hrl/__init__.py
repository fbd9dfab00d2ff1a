"""Hierarchical reinforcement learning.

import hrl

run = hrl.train("hiro", env="PointMaze_UMaze-v3")
action, state = run.policy().predict(observation, state)
hrl.load(run.path).evaluate(episodes=100).summary()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hrl.version import __version__

if TYPE_CHECKING:
    from hrl.api.callbacks import from_sb3
    from hrl.api.report import write_report
    from hrl.api.runs import Run, load
    from hrl.api.training import train
    from hrl.api.wandb import to_wandb
    from hrl.errors import UserError
    from hrl.pretrained import list_pretrained
    from hrl.report.evaluation import Evaluation
    from hrl.report.pictures import Picture
    from hrl.run.callbacks import Callback, Progress

WHERE = {
    "Callback": "hrl.run.callbacks",
    "Evaluation": "hrl.report.evaluation",
    "Picture": "hrl.report.pictures",
    "Progress": "hrl.run.callbacks",
    "Run": "hrl.api.runs",
    "UserError": "hrl.errors",
    "from_sb3": "hrl.api.callbacks",
    "list_pretrained": "hrl.pretrained",
    "load": "hrl.api.runs",
    "to_wandb": "hrl.api.wandb",
    "train": "hrl.api.training",
    "write_report": "hrl.api.report",
}
"""The module of each public name, imported when the name is first used."""

__all__ = [
    "Callback", "Evaluation", "Picture", "Progress", "Run", "UserError", "__version__", "from_sb3", "list_pretrained",
    "load", "to_wandb", "train", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in WHERE:
        return getattr(import_module(WHERE[name]), name)
    if name in ("agents", "envs"):
        return import_module(f"hrl.{name}")
    raise AttributeError(f"module 'hrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "agents", "envs"])
