"""An outer level learns the reward of HIRO's low level, on a task with delayed rewards.

    python examples/hierarchical_reward.py

In ridge_penalty.py and bandit_reward.py, the inner optimisation consists of a few lines. Here, it is the low level's
update of critic and actor. The outer level differentiates through this update (hrl/nested/levels/reward.py). The
command line can do the same:

    python train.py hiro --env Pendulum-v1 --reward-delay 20 --low.reward learned
"""

import torch

from hrl.agents import HIROConfig, Setting
from hrl.agents.hiro import High, Low
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands.goals import GoalConfig

torch.manual_seed(0)
env = make_env(EnvConfig("Pendulum-v1", num_envs=8, reward_delay=20))
config = HIROConfig(
    low=Low.of(reward="learned", hidden=(64, 64), train_freq=16),
    high=High.of(hidden=(64, 64), train_freq=80, hindsight_actions=0.3),
    goal=GoalConfig(low=(-1.0, -1.0, -4.0), high=(1.0, 1.0, 4.0)),
)
agent = config.make(Setting(env.spec, env.num_envs, torch.device("cpu"), seed=0, measure=lambda: env))
obs = env.reset(0)
while agent.steps < 8000:
    step = env.step(agent.act(obs))
    agent.observe(step)
    agent.learn()
    obs = step.obs
    if agent.steps % 2000 == 0:
        m = agent.pop_metrics()
        if "low/learned_reward" in m:
            print(f"{agent.steps} steps: learned reward {m['low/learned_reward']:.3f} "
                  f"± {m['low/learned_reward_spread']:.3f}, its gradient {m['low/intrinsic_gradient']:.1e}, "
                  f"distance to subgoals {m['low/subgoal_distance']:.2f}")  # fmt: skip
