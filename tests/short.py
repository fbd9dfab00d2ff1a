"""Short mode: caps what the code of the documentation trains and evaluates.

Nothing in `hrl` knows it: `install` puts wrappers around the functions that a program calls, and `command_line` changes
the arguments of a command. The kernels that run the notebooks install it too.
"""

from typing import Any

STEPS, EPISODES = 400, 2
DEBUG: dict[str, Any] = {"preset": "debug", "threads": 1, "eval_episodes": 1, "eval_freq": STEPS}


def install(patch: Any = setattr) -> None:
    """Make `hrl.train` and a run's methods short. `patch` sets an attribute, and may undo it later."""
    import hrl

    train, evaluate, resume, plot = hrl.train, hrl.Run.evaluate, hrl.Run.resume, hrl.Run.plot_trajectories

    def short_train(algorithm: Any, env: Any, **options: Any) -> Any:
        options = DEBUG | {name: x for name, x in options.items() if name not in ("preset", "num_envs", "eval_freq")}
        return train(algorithm, env, **options | {"total_steps": min(STEPS, options.get("total_steps", STEPS))})

    def short_resume(self: Any, total_steps: int | None = None, callbacks: Any = ()) -> Any:
        return resume(self, None if total_steps is None else min(total_steps, self.steps + STEPS), callbacks)

    def short_evaluate(self: Any, episodes: int = 100, *arguments: Any, **keywords: Any) -> Any:
        return evaluate(self, min(episodes, EPISODES), *arguments, **keywords)

    def short_plot(self: Any, episodes: int = 4, *arguments: Any, **keywords: Any) -> Any:
        return plot(self, min(episodes, EPISODES), *arguments, **keywords)

    patch(hrl, "train", short_train)
    patch(hrl.Run, "resume", short_resume)
    patch(hrl.Run, "evaluate", short_evaluate)
    patch(hrl.Run, "plot_trajectories", short_plot)


def command_line(arguments: list[str]) -> list[str]:
    """The arguments of train.py or evaluate.py in short mode: the debug preset, few steps, few episodes."""
    script, *rest = arguments
    if script == "evaluate.py":
        return [script, *rest, "--episodes", str(EPISODES)]
    if "--help" in rest:
        return arguments
    short = ["--threads", "1", "--eval-episodes", "1", "--total-steps", str(STEPS)]
    return [script, *rest, *short, *([] if "--resume" in rest else ["--preset", "debug"])]
