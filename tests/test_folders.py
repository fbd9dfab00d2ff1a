"""Run folders that are damaged, edited or from a stranger: each is reported, and none runs code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from damages import CONFIG, DAMAGES, MANIFEST, NEWEST, NUMBERS, OLDER, edit, put
from hrl_scripts import evaluate, train
from runs import ENDLESS, LINE, ROOT, await_checkpoint, run_of, start, trained

from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    return run


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_reported(name, copied, capsys):
    DAMAGES[name](copied)
    outcomes = []
    for command in (
        lambda: evaluate.main([str(copied), "--episodes", "1"]),
        lambda: train.main(["--resume", str(copied), "--total-steps", "1010", "--progress", "False"]),
    ):
        capsys.readouterr()
        code, said = command(), capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        warned = [line for line in said.err.splitlines() if line.startswith("warning: ")]
        assert (code == 2 and said.err.count("error: ") == 1) or (code == 0 and warned), (name, code, said.err)
        assert len(said.err) < 2000
        outcomes.append(code)
    # A newest checkpoint that is damaged leaves the one before; a changed configuration lets nothing go on.
    assert outcomes[1] == (0 if name.startswith("newest") else 2), said.err
    if name.startswith("newest"):
        assert any("Using the checkpoint at 500 steps" in line for line in warned)


def test_there_are_sixty_damages():
    assert len(DAMAGES) >= 60


def test_folders_with_other_names_are_not_checkpoints(copied):
    (copied / "checkpoints" / "step-abc").mkdir()
    (copied / "checkpoints" / "step-").mkdir()
    assert Checkpoints(copied / "checkpoints").steps == 1000
    assert evaluate.main([str(copied), "--episodes", "1"]) == 0


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01\x02", b"", b"no,header,here\n1,2,3,4,5\n", b"1,2\nx,y\n"])
def test_a_damaged_table_is_reported(content, copied, tmp_path, capsys):
    (copied / "progress.csv").write_bytes(content)
    other = tmp_path / "other"
    shutil.copytree(copied, other)
    code = evaluate.main([str(copied), str(other), "--episodes", "1", "--plot", str(tmp_path / "x.png")])
    error = capsys.readouterr().err
    assert code == 2 and "Traceback" not in error and error.count("error: ") == 1
    code = train.main(["--resume", str(copied), "--total-steps", "1010", "--progress", "False"])
    error = capsys.readouterr().err
    assert "Traceback" not in error and (code == 0 or error.count("error: ") == 1)


def test_damaged_event_files_and_a_damaged_best_are_reported(copied, capsys):
    for file in copied.glob("events.*"):
        file.write_bytes(b"\x00" * 100)
    (best,) = (copied / "checkpoints").glob("best-*")
    (best / "tensors.safetensors").write_bytes(b"x")
    assert evaluate.main([str(copied), "--episodes", "1", "--checkpoint", "best"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert train.main(["--resume", str(copied), "--total-steps", "1010", "--progress", "False"]) == 0


def test_an_edited_run_continues_only_when_asked_to(copied, capsys):
    edit(CONFIG, put("config", "agent", "low", "learning_rate", value=0.5))(copied)
    more = ["--resume", str(copied), "--total-steps", "1010", "--progress", "False"]
    assert train.main(more) == 2
    assert "was changed after the run started" in capsys.readouterr().err
    assert train.main([*more, "--allow-edited"]) == 0


def test_a_comparison_skips_a_run_that_cannot_be_read(finished, copied, tmp_path, capsys):
    (copied / "config.json").write_text("{")
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    assert evaluate.main([str(finished), str(copied), str(other), "--episodes", "1"]) == 0
    said = capsys.readouterr()
    assert f"warning: {copied} is skipped" in said.err and "2" in said.out


# -- a stranger's folder -------------------------------------------------------------------------------------

STRANGER = "import os, pathlib\npathlib.Path(os.environ['MARK']).write_text('here')\n"


SCRIPTS = """
import sys
sys.path[0] = sys.argv[1]  # as for a script in that folder
import json, runpy
for script, *arguments in json.loads(sys.argv[2]):
    sys.argv = [f"{sys.path[0]}/{script}", *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print(end.code)
"""
"""Runs scripts one after the other in one process, and prints their exit codes."""


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        # A module that is loaded already needs no trust, and must not open the folder to others.
        put("config", "env", "env", value="gymnasium:CartPole-v1"),
        put("algorithm", value="stranger:f"), put("algorithm", value="stranger.evil:f"),
        put("config", "env", "env", value="stranger:Id-v0"), put("config", "run", "eval_env", value="stranger:Id-v0"),
        put("config", "agent", "goal", "projection", value="stranger:f"),
    ],
)  # fmt: skip
def test_a_strangers_folder_runs_no_code(change, beside, copied, tmp_path):
    edit(CONFIG, change)(copied)
    mark, package = tmp_path / "mark", tmp_path if beside else copied
    (package / "stranger.py").write_text(STRANGER)
    for name in (
        "yaml",
        "torch",
        "tasks",
        "optuna",
        "gymnasium_robotics",
        "mujoco",
        "matplotlib",
        "pygame",
    ):  # what is imported on the way
        (package / f"{name}.py").write_text(STRANGER)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MARK": str(mark)}
    commands = (
        ["evaluate.py", str(copied)], ["evaluate.py", str(copied), str(copied), "--plot", str(tmp_path / "x.png")],
        ["train.py", "--resume", str(copied), "--total-steps", "2000", "--allow-edited"],
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS, str(ROOT), json.dumps(commands)], cwd=package, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["2"] * len(commands) and not mark.exists(), done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == len(commands)
    if "gymnasium:" not in (copied / CONFIG).read_text():
        assert done.stderr.count("add --trust if you trust this folder") >= len(commands)


def test_a_module_is_imported_where_it_is_trusted(copied, tmp_path, capsys, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "stranger_trusted.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).write_text('here')\nimport tasks\n"
    )
    edit(CONFIG, put("config", "env", "env", value="stranger_trusted:GoalLine-v0"))(copied)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(copied), "--episodes", "1"]) == 2 and not mark.exists()
    assert "stranger_trusted" in capsys.readouterr().err
    assert evaluate.main([str(copied), "--episodes", "1", "--trust"]) == 0 and mark.exists()


def test_a_levels_earlier_run_is_not_trusted_either(copied, tmp_path, capsys):
    edit(CONFIG, put("algorithm", value="stranger:f"))(copied)
    arguments = ["hiro", *LINE, "--low.init-from", str(copied), "--log-dir", str(tmp_path / "runs")]
    assert train.main(arguments) == 2
    assert "add --trust" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".lock", ".config.json.writing", "progress.writing", "progress.csv", "checkpoints"])
def test_a_folder_with_links_raises_an_error(name, copied, tmp_path, capsys):
    """Writing to a link would write to a file of the stranger's choice."""
    target = tmp_path / "profile"
    target.write_text("mine")
    if (copied / name).exists():
        (copied / name).rename(tmp_path / "aside")
    (copied / name).symlink_to(target)
    assert train.main(["--resume", str(copied), "--total-steps", "1010", "--progress", "False"]) == 2
    assert "contains links to other folders" in capsys.readouterr().err and target.read_text() == "mine"


@pytest.mark.parametrize("value", [None, {}, {"recent": None}, {"recent": {"buckets": [[99999, 1, 1, 1, 1]]}}, "x"])
def test_a_checkpoint_with_statistics_that_do_not_fit_is_reported(value, copied, capsys):
    import hashlib

    for folder in (NEWEST, OLDER):
        numbers = json.loads((copied / folder / NUMBERS).read_text())
        if isinstance(value, dict) and value:
            for key, x in value.items():
                numbers["reporter"][key] = numbers["reporter"][key] | x if x else x
        else:
            numbers["reporter"] = value
        text_of = json.dumps(numbers)
        (copied / folder / NUMBERS).write_text(text_of)
        edit(f"{folder}/{MANIFEST}", put("sha256", NUMBERS, value=hashlib.sha256(text_of.encode()).hexdigest()))(copied)
    before = (copied / CONFIG).read_text()
    assert train.main(["--resume", str(copied), "--total-steps", "1010", "--progress", "False"]) == 2
    assert "does not fit the configuration" in capsys.readouterr().err and (copied / CONFIG).read_text() == before


def test_modules_that_are_named_here_are_trusted_here(copied, tmp_path, capsys, monkeypatch):
    """--low.init-from names a run whose environment this command names itself."""
    (tmp_path / "mine_named.py").write_text("import tasks\n")
    edit(CONFIG, put("config", "env", "env", value="mine_named:GoalLine-v0"))(copied)
    monkeypatch.chdir(tmp_path)
    arguments = [
        "hiro",
        "--env",
        "mine_named:GoalLine-v0",
        *LINE[2:],
        "--low.init-from",
        str(copied),
        "--low.frozen",
        "True",
    ]
    assert train.main([*arguments, "--total-steps", "300", "--log-dir", str(tmp_path / "runs")]) == 0, (
        capsys.readouterr()
    )


# -- two processes -------------------------------------------------------------------------------------------


def test_two_processes_do_not_share_a_run(tmp_path, capsys):
    process = start("hiro", *LINE, *ENDLESS, "--log-dir", str(tmp_path))
    await_checkpoint(process, tmp_path)
    run = run_of(tmp_path)
    assert train.main(["--resume", str(run)]) == 2
    assert f"is already running, in process {process.pid}" in capsys.readouterr().err
    process.kill()  # what it leaves behind is no lock
    process.wait()
    steps = Checkpoints(run / "checkpoints").last().steps
    assert train.main(["--resume", str(run), "--total-steps", str(steps + 10), "--progress", "False"]) == 0


def test_runs_that_start_in_the_same_second_have_their_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr("hrl.run.folder.time.strftime", lambda form: "20261130-180000")
    words = [*LINE, "--log-dir", str(tmp_path), "--eval-freq", "100"]
    for steps in ("200", "300"):
        assert train.main(["hiro", *words, "--total-steps", steps]) == 0
    first, second = (tmp_path / "tasks-GoalLine-v0" / "hiro" / f"0-20261130-180000{n}" for n in ("", "-2"))
    assert Checkpoints(first / "checkpoints").steps == 200 and Checkpoints(second / "checkpoints").steps == 300
    for run in (first, second):
        kinds = {path.name.split("-")[0] for path in (run / "checkpoints").iterdir()}
        assert kinds == {"step", "best"} and (run / "progress.csv").exists()


def test_a_missing_checkpoint_folder_raises_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="contains no checkpoint"):
        Checkpoints(tmp_path / "nowhere").last()


def test_an_algorithm_must_be_an_object(tmp_path, capsys):
    for name in ("tasks:Ledger", "tasks:gives_a_class"):
        assert train.main([name, "--env", "X"]) == 2
        assert "is not an algorithm" in capsys.readouterr().err
    assert trained(tmp_path, "--total-steps", "100")
