"""Algorithms, one file each. A new algorithm needs one file in this folder and one entry below.

Algorithms with options or skills are in `options`, and those that learn to learn in `meta`.
"""

import ast
import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrl.errors import UserError

if TYPE_CHECKING:
    from hrl.agents.base import AgentConfig, HierarchyConfig
    from hrl.agents.hiro import HIROConfig
    from hrl.hierarchy.setting import Setting


class Registry(Mapping[str, Any]):
    """The configuration class of each algorithm by name. Its module is imported when the class is first used."""

    def __init__(self, places: dict[str, str]) -> None:
        """`places` maps names to `module:class`, with modules of this package."""
        self._places = places

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._places[name].partition(":")
        return getattr(importlib.import_module(f"hrl.agents.{module}"), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def named(self, attribute: str) -> str | None:
        """The name of the algorithm with this configuration class, with or without "Config": HIRO is HIROConfig."""
        classes = {place.partition(":")[2]: name for name, place in self._places.items()}
        return classes.get(attribute, classes.get(f"{attribute}Config"))

    def summary(self, name: str) -> str:
        """The first sentence of the class's docstring, read from the source, without an import."""
        module, _, attribute = self._places[name].partition(":")
        file = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
        source = ast.parse(file.read_text(encoding="utf-8"))
        classes = {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}
        return " ".join((ast.get_docstring(classes[attribute]) or "").split("\n\n")[0].split())


AGENTS = Registry({
    "hiro": "hiro:HIROConfig",
    "hrac": "hrac:HRACConfig",
    "hac": "hac:HACConfig",
    "hiql": "hiql:HIQLConfig",
    "landmarks": "landmarks:LandmarksConfig",
    "skills": "options.skills:SkillsConfig",
    "hdqn": "hdqn:HDQNConfig",
    "option-critic": "options.option_critic:OptionCriticConfig",
    "ppoc": "options.ppoc:PPOCConfig",
    "hippo": "options.hippo:HiPPOConfig",
    "diayn": "options.diayn:DIAYNConfig",
    "feudal": "feudal:FeudalConfig",
    "maml": "meta.maml:MAMLConfig",
    "famp": "meta.famp:FAMPConfig",
    "lirpg": "meta.lirpg:LIRPGConfig",
    "modac": "meta.modac:MODACConfig",
    "td3": "flat:FlatTD3",
    "sac": "flat:FlatSAC",
    "dqn": "flat:FlatDQN",
    "discrete-sac": "flat:FlatDiscreteSAC",
    "ppo": "flat:FlatPPO",
    "sb3-td3": "sb3:SB3TD3",
    "sb3-sac": "sb3:SB3SAC",
    "sb3-ppo": "sb3:SB3PPO",
    "sb3-dqn": "sb3:SB3DQN",
})  # fmt: skip
"""The configuration class of each algorithm by name."""
NAMES = {"AgentConfig": "base", "HierarchyConfig": "base", "HIROConfig": "hiro"}
"""The public names of this package, with their modules. A module is imported when its name is first used."""


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(importlib.import_module(f"hrl.agents.{NAMES[name]}"), name)
    if name == "Setting":
        return importlib.import_module("hrl.hierarchy.setting").Setting
    if (agent := AGENTS.named(name)) is not None:
        return AGENTS[agent]
    raise AttributeError(f"module 'hrl.agents' has no attribute {name!r}")


def find_agent(name: str) -> Any:
    """An algorithm's configuration with its defaults, by name, or by `module:factory` for a custom algorithm.

    Raises UserError, with the closest name, for an unknown algorithm.
    """
    if name in AGENTS:
        return AGENTS[name]()
    if ":" not in name:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), AGENTS, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(AGENTS)}, or give module:factory."
        raise UserError(f"There is no algorithm {name!r}. {hint}")
    module, _, attribute = name.partition(":")
    try:
        config = getattr(importlib.import_module(module), attribute)()
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(f"The algorithm {name!r} cannot be imported ({type(error).__name__}: {error}).") from error
    if isinstance(config, type) or not (is_dataclass(config) and hasattr(config, "train") and hasattr(config, "load")):
        raise UserError(
            f"{name!r} is not an algorithm: let it return an instance of a dataclass, such as a HierarchyConfig."
        )
    return config


__all__ = ["AGENTS", "AgentConfig", "HIROConfig", "HierarchyConfig", "Setting", "find_agent"]
