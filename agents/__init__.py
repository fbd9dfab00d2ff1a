"""Algorithms, one file each. A new algorithm needs one new file here and one new entry below."""

import difflib
import importlib
from dataclasses import is_dataclass
from typing import Any

from hrl.agents.base import AgentConfig, HierarchyConfig
from hrl.agents.diayn import DIAYNConfig
from hrl.agents.famp import FAMPConfig
from hrl.agents.feudal import FeudalConfig
from hrl.agents.flat import FlatDiscreteSAC, FlatDQN, FlatPPO, FlatSAC, FlatTD3
from hrl.agents.hac import HACConfig
from hrl.agents.hdqn import HDQNConfig
from hrl.agents.hippo import HiPPOConfig
from hrl.agents.hiql import HIQLConfig
from hrl.agents.hiro import HIROConfig
from hrl.agents.hrac import HRACConfig
from hrl.agents.landmarks import LandmarksConfig
from hrl.agents.lirpg import LIRPGConfig
from hrl.agents.maml import MAMLConfig
from hrl.agents.modac import MODACConfig
from hrl.agents.option_critic import OptionCriticConfig
from hrl.agents.ppoc import PPOCConfig
from hrl.agents.sb3 import SB3DQN, SB3PPO, SB3SAC, SB3TD3
from hrl.agents.skills import SkillsConfig
from hrl.hierarchy.setting import Setting
from hrl.types import UserError

AGENTS: dict[str, Any] = {
    "hiro": HIROConfig,
    "hrac": HRACConfig,
    "hac": HACConfig,
    "skills": SkillsConfig,
    "hippo": HiPPOConfig,
    "diayn": DIAYNConfig,
    "hiql": HIQLConfig,
    "landmarks": LandmarksConfig,
    "hdqn": HDQNConfig,
    "maml": MAMLConfig,
    "famp": FAMPConfig,
    "feudal": FeudalConfig,
    "lirpg": LIRPGConfig,
    "modac": MODACConfig,
    "option-critic": OptionCriticConfig,
    "ppoc": PPOCConfig,
    "td3": FlatTD3,
    "sac": FlatSAC,
    "dqn": FlatDQN,
    "discrete-sac": FlatDiscreteSAC,
    "ppo": FlatPPO,
    "sb3-td3": SB3TD3,
    "sb3-sac": SB3SAC,
    "sb3-ppo": SB3PPO,
    "sb3-dqn": SB3DQN,
}


def find_agent(name: str) -> Any:
    """An algorithm's configuration with its defaults, by name, or by `module:factory` for a custom algorithm.

    Raises UserError, with the closest name, for an unknown algorithm.
    """
    if name in AGENTS:
        return AGENTS[name]()
    if ":" not in name:
        close = difflib.get_close_matches(name, AGENTS, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(AGENTS)}, or give module:factory."
        raise UserError(f"There is no algorithm {name!r}. {hint}")
    module, _, attribute = name.partition(":")
    try:
        config = getattr(importlib.import_module(module), attribute)()
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise UserError(f"The algorithm {name!r} cannot be imported ({type(error).__name__}: {error}).") from error
    if isinstance(config, type) or not (is_dataclass(config) and hasattr(config, "train") and hasattr(config, "load")):
        raise UserError(
            f"{name!r} is not an algorithm: it must return an instance of a dataclass, such as a HierarchyConfig."
        )
    return config


__all__ = ["AGENTS", "AgentConfig", "HIROConfig", "HierarchyConfig", "Setting", "find_agent"]
