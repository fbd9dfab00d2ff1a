"""The Python interface: the same runs as the command line."""

import importlib
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from hrl_scripts import evaluate
from runs import same_state, trained
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from tasks import GoalLine, Ledger

import hrl
from hrl.agents.flat import FlatTD3
from hrl.agents.hiro import High, HIROConfig, Low
from hrl.api.training import nested
from hrl.learners import TD3Config

QUICK = {"preset": "debug", "threads": 1, "progress": False}


def run(tmp_path, algorithm="hiro", env="tasks:GoalLine-v0", **options):
    return hrl.train(algorithm, env=env, log_dir=tmp_path, **QUICK | options)


def test_a_program_and_the_command_line_make_the_same_run(tmp_path):
    typed = trained(tmp_path / "typed", "--seed", "3", "--low.learning-rate", "5e-4", "--high.learner", "sac")
    one = run(tmp_path / "one", seed=3, low__learning_rate=5e-4, high={"learner": "sac"})
    assert same_state(typed, one.path) and one.finished and one.steps == 1000
    assert one.config.low.learner.learning_rate == 5e-4 and one.config.high.learner.kind == "sac"


def test_a_run_is_stopped_by_a_callback_and_resumed_exactly(tmp_path):
    whole = run(tmp_path / "whole", callbacks=[hrl.Callback(lambda p: p.save(), every=400)])
    stopping = [
        lambda p: None,
        hrl.Callback(lambda p: p.stop() if p.steps >= 400 else p.log("mine/seen", p.steps), 100),
    ]
    part = run(tmp_path / "part", callbacks=stopping)
    assert part.steps == 400 and not part.finished
    seen = part.scalars()["mine/seen"]
    assert seen[~np.isnan(seen)].tolist() == [100, 200, 300]
    again = part.resume(callbacks=[hrl.Callback(lambda p: p.save(), every=400)])
    assert again.finished and same_state(whole.path, again.path)
    with pytest.raises(hrl.UserError, match="already has 1,000 steps"):
        again.resume()
    assert again.resume(1100).steps == 1100


def test_a_callback_sees_the_agent_its_scalars_and_evaluates(tmp_path):
    met = []

    def look(progress):
        scalars = progress.scalars
        met.append((type(progress.agent).__name__, progress.total_steps, progress.path, "time/fps" in scalars))
        met.append(progress.evaluate(3).summary()["episodes"])

    done = run(tmp_path, callbacks=[hrl.Callback(look, every=600)])
    assert met == [("Hierarchy", 1000, done.path, True), 3]


def test_a_run_is_loaded_evaluated_and_acts(tmp_path):
    path = run(tmp_path).path
    loaded = hrl.load(path)
    assert "hiro on tasks:GoalLine-v0, 1,000 steps" in repr(loaded)
    assert loaded.evaluate(5).summary() == hrl.load(str(path)).evaluate(5).summary()
    env = gym.make("GoalLine-v0")
    action, state = loaded.policy().predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action.astype(np.float32))
    loaded.policy("last").predict(env.step(action)[0], state)
    mean, _ = evaluate_policy(loaded.policy(), env, 2, warn=False)
    assert np.isfinite(mean)
    with pytest.raises(hrl.UserError, match="is not a run folder"):
        hrl.load(tmp_path / "nothing")


def test_a_run_shows_pictures_without_pyplot(tmp_path):
    before = set(sys.modules)
    done = run(tmp_path, env="hrl/PointMaze_UMaze-v0", low__hidden=(8,), high__hidden=(8,))
    picture = done.plot_trajectories(3)
    (*drawn,) = (axes for axes in picture.figure.axes if axes.axison)
    assert len(drawn) == 3 and picture._repr_png_()[:4] == b"\x89PNG"
    picture.save(tmp_path / "paths.svg")
    assert (tmp_path / "paths.svg").read_text().count("<svg") == 1
    curves = done.plot_curves("eval/mean_reward", "time/fps")
    first, second = curves.figure.axes
    assert (first.get_title(), second.get_title()) == ("eval/mean_reward", "time/fps")
    logged = done.scalars()["eval/mean_reward"]
    assert first.lines[0].get_xydata().tolist() == [
        [500, *logged[~np.isnan(logged)][:1]],
        [1000, *logged[~np.isnan(logged)][1:]],
    ]
    assert [axes.get_title() for axes in done.plot_curves().figure.axes] == ["eval/success_rate", "eval/mean_reward"]
    with pytest.raises(hrl.UserError, match="has no scalar eval/succes; it has"):
        done.plot_curves("eval/succes")
    assert "matplotlib.pyplot" not in set(sys.modules) - before
    over = run(tmp_path, "skills", env="hrl/PointMaze_UMaze-v0", skill=["test_api:still_in_the_plane"])
    assert over.plot_trajectories(1).figure.axes  # positions are those of the task's goals
    line = run(tmp_path)
    with pytest.raises(hrl.UserError, match="cannot be drawn in two dimensions"):
        line.plot_trajectories(1)


class Mine(Ledger):
    """An environment without an id."""


def test_an_environment_is_a_class_or_a_function(tmp_path):
    first = run(tmp_path / "a", "td3", env=Mine, hidden=(8,))
    assert first.parts.env.env == f"{__name__}:Mine"
    second = run(tmp_path / "b", "td3", env=lambda: gym.wrappers.TimeLimit(GoalLine(), 7), hidden=(8,))
    assert second.steps == 1000 and second.parts.env.env.startswith("local/")

    def many(num_envs):
        return SyncVectorEnv([Mine] * num_envs)

    third = run(tmp_path / "c", "td3", env=many, hidden=(8,), num_envs=3)
    assert third.steps >= 1000
    fourth = run(tmp_path / "d", "td3", env=gym.make("Ledger-v0", fail_at=-2), hidden=(8,))
    assert fourth.parts.env.env_kwargs == {"fail_at": -2}
    with pytest.raises(hrl.UserError, match="pass its class"):
        run(tmp_path / "e", "td3", env=Mine())
    with pytest.raises(hrl.UserError, match="must be an id, a class or a function"):
        run(tmp_path / "e", "td3", env=3)


MODULE = """
import gymnasium as gym
import numpy as np

class Slope(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(action[0]), False, self.steps == 5, {}
"""
OTHER = """
import sys
import hrl

print(hrl.load(sys.argv[1], trust=True).evaluate(episodes=2).summary()["mean_ep_length"])
try:
    hrl.load(sys.argv[2]).evaluate(episodes=2)
except Exception as error:
    print(error)
"""


def test_another_process_evaluates_a_run_of_a_modules_class(tmp_path, monkeypatch):
    (tmp_path / "slopes.py").write_text(MODULE)
    (tmp_path / "other.py").write_text(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    slopes = importlib.import_module("slopes")
    done = run(tmp_path / "a", "td3", env=slopes.Slope, hidden=(8,), total_steps=100)
    assert done.parts.env.env == "slopes:Slope"
    only_here = run(tmp_path / "b", "td3", env=lambda: slopes.Slope(), hidden=(8,), total_steps=100)
    command = [sys.executable, "other.py", str(done.path), str(only_here.path)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    length, sentence = said.stdout.splitlines()
    assert length == "5.0" and "of the program that trained the run. Move it to a module" in sentence
    assert evaluate.main([str(done.path), "--episodes", "2", "--json"]) == 0


def test_an_algorithm_is_a_name_or_a_configuration(tmp_path):
    assert hrl.agents.HIRO is HIROConfig and hrl.agents.FlatTD3 is FlatTD3 and hrl.agents.HIQLConfig is hrl.agents.HIQL
    with pytest.raises(AttributeError, match="no attribute 'Hiro'"):
        _ = hrl.agents.Hiro
    small = TD3Config(hidden=(8,))
    done = run(tmp_path, HIROConfig(low=Low(learner=small), high=High(learner=small, period=4)))
    assert done.algorithm == "hiro" and done.config.high.period == 4 and done.steps == 1000
    assert run(tmp_path, FlatTD3(learner=small)).algorithm == "td3"
    with pytest.raises(hrl.UserError, match="Did you mean hiro"):
        run(tmp_path, "hirro")
    with pytest.raises(hrl.UserError, match=r"has no option 'gama'.*Did you mean gamma"):
        run(tmp_path, low__gama=0.9)
    with pytest.raises(hrl.UserError, match="total_steps must be of type int"):
        run(tmp_path, total_steps="many")


def still_in_the_plane(observation):
    return np.zeros((len(observation["observation"]), 2), np.float32)


def still(observation):
    return np.ones((len(observation), 1), np.float32)


def test_modules_named_by_a_program_need_no_trust(tmp_path):
    done = run(tmp_path, "skills", env="tasks:Ledger-v0", skill=["test_api:still"])
    assert done.policy("last").predict(np.zeros((2, 2), np.float32))[0].tolist() == [[1.0], [1.0]]
    with pytest.raises(hrl.UserError, match="add --trust"):
        hrl.load(done.path)


def test_numbers_may_be_numpys_or_floats_and_names_dotted(tmp_path):
    one = run(tmp_path, total_steps=1e2, eval_freq=0, seed=np.int64(3), **{"low.hidden": np.array([8, 4])})
    assert (one.steps, one.parts.run.seed, one.config.low.learner.hidden) == (100, 3, (8, 4))


def test_numbers_of_a_yaml_file_need_no_point(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text('"*": {total_steps: 1e2, eval_freq: 0, low: {learning_rate: 1e-3, tau: 5.e-2}}')
    one = hrl.train("hiro", "tasks:GoalLine-v0", preset=str(file), log_dir=tmp_path, progress=False)
    learner = one.config.low.learner
    assert (one.steps, learner.learning_rate, learner.tau) == (104, 1e-3, 0.05)
    for text in ("100", "1e", "e3", "1e2.5", "nan", "0x1e1"):
        with pytest.raises(hrl.UserError, match="total_steps must be of type int"):
            run(tmp_path, total_steps=text)


def test_a_preset_scales_with_numpys_numbers_too(tmp_path):
    runs = [run(tmp_path, "hiro", "hrl/PointMaze_UMaze-v0", preset="auto", num_envs=n, total_steps=600, eval_freq=0)
            for n in (256, np.int64(256))]  # fmt: skip
    assert {one.config.low.learner.batch_size for one in runs} == {1024}


def test_a_vector_environment_gives_its_id_and_number(tmp_path):
    one = run(tmp_path, "td3", gym.make_vec("tasks:GoalLine-v0", num_envs=3), total_steps=99, eval_freq=0)
    assert one.parts.env.env == "GoalLine-v0" and one.parts.env.num_envs == 3


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"algorithm": None}, "algorithm must be a name or a configuration object, such as HIROConfig(), not None."),
    ({"algorithm": HIROConfig}, "algorithm must be a name or a configuration object"),
    ({"totl_steps": 1}, "train() has no option 'totl_steps'. Did you mean total_steps?"),
    ({"algorithm": "td3", "learning_rat": 1}, "train() has no option 'learning_rat'. Did you mean learning_rate?"),
    ({"num_envs": True}, "train(): num_envs must be of type int or 'auto', not True."),
    ({"total_steps": 1.5}, "train(): total_steps must be of type int, not 1.5."),
    ({"callbacks": 3}, "callbacks must be functions or Callback objects, not 3."),
    ({"callbacks": [print, "x"]}, "callbacks must be functions or Callback objects"),
])  # fmt: skip
def test_wrong_arguments_of_a_program_raise_one_sentence(arguments, sentence, tmp_path):
    with pytest.raises(hrl.UserError) as caught:
        run(tmp_path, **arguments)
    assert str(caught.value).startswith(sentence) and not list(tmp_path.iterdir())


def test_faults_of_an_environment_are_user_errors_with_their_cause(tmp_path):
    with pytest.raises(hrl.UserError, match="There is no environment 'Nowhere-v0'"):
        run(tmp_path, env="Nowhere-v0")
    faulty = "Environment 0 of Ledger-v0 raised RuntimeError in step.* the simulator fell over"
    with pytest.raises(hrl.UserError, match=faulty) as caught:
        run(tmp_path, "td3", "tasks:Ledger-v0", env_kwargs={"fail_at": 40, "fault": "raise"})
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_wrong_arguments_of_a_runs_methods_raise_one_sentence(tmp_path):
    one = run(tmp_path, total_steps=100, eval_freq=0, callbacks=lambda progress: None)
    for call, sentence in (
        (lambda: one.evaluate(episodes=0), "episodes must be at least 1, not 0."),
        (lambda: one.evaluate(episodes="3"), "episodes must be of type int, not '3'."),
        (lambda: one.policy("worst"), "The checkpoint must be 'best' or 'last', not 'worst'."),
        (lambda: one.checkpoint("worst"), "The checkpoint must be 'best' or 'last', not 'worst'."),
        (lambda: one.resume(total_steps="200"), "total_steps must be of type int, not '200'."),
    ):
        with pytest.raises(hrl.UserError) as caught:
            call()
        assert str(caught.value) == sentence


@pytest.mark.parametrize("observation", [np.zeros(4), np.zeros((2, 4)), {"x": 0}, None, "text", 3.0, [0, np.nan, 0]])
def test_an_observation_that_does_not_fit_is_refused(observation, tmp_path_factory):
    policy = run(tmp_path_factory.mktemp("run"), "td3", "Pendulum-v1", total_steps=20, eval_freq=0).policy("last")
    with pytest.raises(hrl.UserError, match=r"The observation (does not fit Box|is NaN)"):
        policy.predict(observation)
    assert policy.predict([0.0, 0.0, 0.0])[0].shape == (1,)


def test_options_of_groups_are_not_mixed_with_values(tmp_path):
    low = {"learning_rate": 1e-3}
    assert nested({"low": low, "low__gamma": 0.9, "seed": 1}) == {"low": {**low, "gamma": 0.9}, "seed": 1}
    assert low == {"learning_rate": 1e-3}
    with pytest.raises(hrl.UserError, match="which has no options"):
        run(tmp_path, seed=3, seed__more=4)


class Recording(BaseCallback):
    """Records its calls, and stops at 500 steps."""

    def _on_training_start(self) -> None:
        self.seen: list[str] = ["start"]

    def _on_step(self) -> bool:
        self.seen.append(str(self.num_timesteps))
        self.logger.record("theirs/steps", self.num_timesteps)
        self.seen.append(str(self.model.predict({"observation": np.zeros(2), "achieved_goal": np.zeros(1),
                                                 "desired_goal": np.ones(1)})[0].shape))  # fmt: skip
        return self.num_timesteps < 500

    def _on_training_end(self) -> None:
        self.seen.append("end")


def test_stable_baselines3s_callbacks_work(tmp_path):
    callback = Recording()
    done = run(tmp_path, callbacks=[hrl.from_sb3(callback, every=250)])
    assert callback.seen == ["start", "250", "(1,)", "500", "(1,)", "end"] and done.steps == 500
    theirs = done.scalars()["theirs/steps"]
    assert theirs[~np.isnan(theirs)].tolist() == [250, 500]


class Judging(EvalCallback):
    """Evaluates, and keeps what it sees of the run."""

    def _on_step(self) -> bool:
        self.seen = self.training_env.num_envs, self.locals["total_timesteps"]
        return super()._on_step()


def test_stable_baselines3s_own_callbacks_work(tmp_path):
    env = make_vec_env("GoalLine-v0", 1)
    judging = Judging(env, n_eval_episodes=2, eval_freq=2, best_model_save_path=str(tmp_path / "best"), verbose=0)
    saving = CheckpointCallback(2, str(tmp_path / "saved"), save_vecnormalize=True, save_replay_buffer=True)
    limit = StopTrainingOnMaxEpisodes(30)
    done = run(tmp_path, callbacks=[hrl.from_sb3(CallbackList([judging, saving, limit]), every=100)], num_envs=2)
    assert judging.seen == (2, 1000) and np.isfinite(judging.last_mean_reward)
    theirs = done.scalars()["eval/mean_ep_length"]
    assert limit.n_episodes >= 30 and not done.finished
    assert np.isfinite(theirs).any()


def test_rows_of_scalars_reach_callbacks(tmp_path):
    rows = []
    listening = hrl.Callback(
        lambda p: p.log("mine/half", p.steps / 2), every=500, logged=lambda p, row: rows.append((p.steps, {*row}))
    )
    done = run(tmp_path, callbacks=[listening])
    steps = done.scalars()["time/total_timesteps"]
    assert [at for at, _ in rows] == steps.tolist()
    assert {"mine/half"} in [names for _, names in rows] and any("eval/mean_reward" in names for _, names in rows)


def test_all_public_names_exist_and_are_documented():
    assert set(hrl.__all__) <= set(dir(hrl))
    for name in hrl.__all__:
        thing = getattr(hrl, name)
        assert isinstance(thing, str) or thing.__doc__
    assert hrl.agents.HIROConfig is HIROConfig
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hrl.nothing
