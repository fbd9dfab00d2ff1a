"""The number of environments by measurement: `--num-envs auto`."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hrl.agents import HierarchyConfig
from hrl.api.sessions import NO_TRUST, Parts, make_session
from hrl.api.trust import Trust
from hrl.envs.make import is_batched
from hrl.execution.processes import ALONE, Processes
from hrl.report.display import print_line
from hrl.run.folder import RunFolder
from hrl.stopping import StopRequest
from hrl.types import UserError

SECONDS, PATIENCE = 0.5, 8.0
"""Seconds of each measurement, and seconds after which no further number is measured."""
MOST, MOST_BATCHED = 256, 16_384
"""Maximum number of environments, and the maximum if they are a batch."""
GAIN, ENOUGH = 1.15, 0.8
"""Doubling goes on while it multiplies the speed by `GAIN`. The smallest number with a fraction `ENOUGH` of the highest
speed is chosen, because each environment takes fewer steps of the run if there are more."""


def with_measured_envs(
    parts: Parts,
    resolve: Callable[[int], Parts],
    processes: Processes = ALONE,
    stop: StopRequest | None = None,
    trust: Trust = NO_TRUST,
) -> Parts:
    """The parts with a number in place of `num_envs="auto"`: numbers are doubled as long as collecting becomes faster.
    `resolve` returns the parts for a number, on which the preset's values may depend.

    Raises UserError if the algorithm determines the number itself, or with several processes.
    """
    if parts.env.num_envs != "auto":
        return parts
    if processes.size > 1:
        raise UserError("--num-envs auto measures in one process: give a number to torchrun's processes.")
    if not isinstance(parts.agent, HierarchyConfig):
        raise UserError(f"--num-envs auto does not support {parts.algorithm}: give a number.")
    speeds, count, started = dict[int, float](), 1, time.perf_counter()
    while True:
        tried = parts._replace(env=replace(parts.env, num_envs=count))
        session = make_session(tried, RunFolder(Path()), stop=stop, trust=trust)
        speeds[count] = parts.agent.collecting_speed(session, SECONDS)
        slower = count > 1 and speeds[count] < GAIN * speeds[count // 2]
        limit = MOST_BATCHED if is_batched(tried.env) else MOST
        if slower or 2 * count > limit or time.perf_counter() - started > PATIENCE:
            break
        count *= 2
    chosen = fastest_enough(speeds)
    table = ", ".join(f"{n}: {speed:,.0f}" for n, speed in speeds.items())
    print_line(f"--num-envs auto: {chosen} environments (environments: steps/s without learning: {table}).")
    return resolve(chosen)


def fastest_enough(speeds: dict[int, float]) -> int:
    """The smallest number of environments whose speed is at least `ENOUGH` of the highest."""
    return min(count for count, speed in speeds.items() if speed >= ENOUGH * max(speeds.values()))
