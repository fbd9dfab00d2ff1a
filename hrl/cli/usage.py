"""The help without an algorithm. It imports neither algorithms nor torch."""

from hrl.agents import AGENTS


def usage() -> str:
    """The text of `--help` without an algorithm."""
    lines = ["usage: train.py ALGORITHM --env ID [options]      (train.py ALGORITHM --help lists them)"]
    lines += ["       train.py --resume RUN [--total-steps N]", "", "algorithms:"]
    width = max(map(len, AGENTS))
    lines += [f"  {name:{width}}  {AGENTS.summary(name)}" for name in AGENTS]
    return "\n".join([*lines, "  module:factory: one of your own (a dataclass such as hrl.agents.HierarchyConfig)"])
