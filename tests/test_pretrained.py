"""The policies that the package ships, and the checkpoints and replays that they need."""

import json

import gymnasium as gym
import pytest
import torch
from hrl_scripts import evaluate, train
from runs import run_of

import hrl
from hrl.memory.dataset import replay_of_episodes
from hrl.memory.ring import Rows
from hrl.pretrained import FOLDER, slimmed
from hrl.run.checkpoint import Checkpoint, load, save

UMAZE = "pretrained/PointMaze_UMaze-v3/hiro"
CARDS = hrl.list_pretrained()


def test_the_promised_policies_are_there_and_small():
    mazes = {f"PointMaze_{size}-v3" for size in ("UMaze", "Medium", "Large")}
    assert {name.split("/")[1] for name in CARDS} == mazes | {"hrl-AntMaze-v0", "hrl-KeyDoor-v0"}
    for name, card in CARDS.items():
        files = [file for file in FOLDER.parent.joinpath(name).rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) <= 1_000_000
        assert {"task", "agent", "steps", "seed", "success_rate_any", "command", "date"} <= card.keys()
        low, high = card["success_rate_final_interval"]
        assert low <= card["success_rate_final"] <= high
        assert low > card["random_actions"]["success_rate_final_interval"][1]  # better than chance


@pytest.mark.parametrize("name", CARDS)
def test_a_pretrained_policy_acts_as_its_card_says(name):
    run = hrl.load(name)
    assert run.card == CARDS[name] and run.steps == run.card["steps"]
    result = run.evaluate(4 if "Ant" in name else 8)
    solved = sum(episode.success_any for episode in result.episodes)
    # Fewer with a probability below 1e-4, for a policy with the card's rate.
    rate, n = run.card["success_rate_any"], len(result.episodes)
    assert solved >= rate * n - 4 * (rate * (1 - rate) * n) ** 0.5
    env = gym.make(run.card["task"], **run.parts.env.env_kwargs)
    action, _ = run.policy().predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action if env.action_space.dtype.kind == "i" else action.astype("float32"))
    env.close()


def test_the_command_line_and_the_planner_take_a_pretrained_policy(capsys):
    assert evaluate.main([UMAZE, "--planner", "graph", "--episodes", "5", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["run"] == UMAZE and summary["landmarks"] > 100 and summary["explored"] == 0
    assert summary["hop_success_rate"] > 0.9
    assert evaluate.main(["pretrained/PointMaze_UMaze-v3/hirro"]) == 2
    assert "There is no policy pretrained/PointMaze_UMaze-v3/hirro; this version has " in capsys.readouterr().err
    with pytest.raises(hrl.UserError, match=r"this version has .*pretrained/hrl-KeyDoor-v0/hdqn"):
        hrl.load("pretrained/anything")


def test_a_run_starts_from_a_pretrained_policy_but_none_resumes_it(tmp_path, capsys):
    with pytest.raises(hrl.UserError, match="is a pretrained policy, without the memories"):
        hrl.load(UMAZE).resume(total_steps=50_000)
    assert train.main(["--resume", UMAZE, "--total-steps", "50000"]) == 2
    assert "is a pretrained policy" in capsys.readouterr().err
    assert not (FOLDER / UMAZE.removeprefix("pretrained/") / ".lock").exists()
    arguments = ["--low.init-from", UMAZE, "--low.frozen", "True", "--total-steps", "300", "--eval-freq", "0"]
    options = ["--env", "PointMaze_UMaze-v3", "--num-envs", "2", "--progress", "False", "--log-dir", str(tmp_path)]
    assert train.main(["hiro", *options, *arguments]) == 0
    mine, theirs = (
        load(next((p / "checkpoints").glob("step-*"))).tensors for p in (run_of(tmp_path), FOLDER / UMAZE[11:])
    )
    assert torch.equal(mine["low.net.actor.0.weight"], theirs["low.net.actor.0.weight"])


def test_a_slimmed_checkpoint_keeps_values_and_shares_targets(tmp_path):
    weight = torch.linspace(-1, 1, 2000)
    networks = {"a.net.target_actor": weight + 1, "a.net.actor": weight, "a.count": torch.tensor(70_000.0)}
    state, final = torch.arange(8.0).view(4, 2), torch.tensor([False, True, False, True])
    save(tmp_path / "step", slimmed(networks, 7, state, final))
    stored = load(tmp_path / "step")
    assert stored.steps == 7 and stored.networks_only
    torch.testing.assert_close(stored.tensors["a.net.actor"], weight, atol=5e-4, rtol=0)
    assert torch.equal(stored.tensors["a.net.target_actor"], stored.tensors["a.net.actor"])
    assert float(stored.tensors["a.count"]) == 70_000 and stored.tensors["visited.state"].tolist() == state.tolist()
    size = (tmp_path / "step" / "tensors.safetensors").stat().st_size
    assert size < 2 * 2000 + 1000
    save(tmp_path / "whole", Checkpoint({"x": weight, "y": weight.clone()}, {"steps": 1}))
    assert not load(tmp_path / "whole").networks_only
    assert json.loads((tmp_path / "whole/numbers.json").read_text()) == {"steps": 1}


def test_a_replay_of_episodes_knows_their_ends():
    state = torch.arange(10.0).view(5, 2)
    replay = replay_of_episodes(state, torch.tensor([False, False, True, False, True]))
    rows = Rows(torch.zeros(5, dtype=torch.int64), torch.arange(5))
    assert replay.get(rows, "state").tolist() == state.tolist()
    assert replay.end(rows).tolist() == [2, 2, 2, 4, 4]
    assert replay.is_final(rows).tolist() == [False, False, True, False, True]
    drawn = replay.draw(400, torch.Generator().manual_seed(0))
    assert sorted(set(drawn.row.tolist())) == [0, 1, 3] and len(replay) == 5
