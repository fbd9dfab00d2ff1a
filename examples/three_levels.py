"""Three levels built in Python, as with `--levels 3` on the command line.

python examples/three_levels.py
"""

import torch

from hrl.agents.hiro import High, HIROConfig, Low, Middle
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.setting import Setting

env_config = EnvConfig("hrl/PointMaze_Medium-v0", num_envs=16)
env = make_env(env_config)
config = HIROConfig(
    levels=3,
    low=Low.of(hidden=(128, 128), train_freq=16),
    middle=Middle.of(hidden=(128, 128), train_freq=16, period=10),
    high=High.of(hidden=(128, 128), train_freq=16, period=4),
    goal=GoalConfig(low=(-1.0,), high=(1.0,), threshold=0.5),
)
agent = config.make(Setting(env.spec, env.num_envs, torch.device("cpu"), 0, lambda: make_env(env_config)))

obs, successes = env.reset(0), 0
for _ in range(600):
    step = env.step(agent.act(obs))
    agent.observe(step)
    agent.learn()
    obs, successes = step.obs, successes + int(step.success.sum())
print(f"{agent.steps:,} steps, {successes} goals reached, {[level.timescale.done for level in agent.levels]} updates")
