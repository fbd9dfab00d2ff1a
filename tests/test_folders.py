"""Run folders that are damaged, edited or from a stranger: each is reported, and none runs code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hrl_scripts import evaluate, train
from runs import ENDLESS, LINE, ROOT, await_checkpoint, run_of, start, trained
from safetensors.numpy import load_file, save_file

from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError

Damage = Callable[[Path], None]
NEWEST, OLDER = "checkpoints/step-000000001000", "checkpoints/step-000000000500"


def edit(file: str, change: Callable[[Any], Any]) -> Damage:
    """Change a JSON file."""

    def damage(run: Path) -> None:
        content = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps(change(content) or content))

    return damage


def put(*keys: str, value: Any) -> Callable[[Any], None]:
    """Set an entry of nested dictionaries."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def drop(*keys: str) -> Callable[[Any], None]:
    """Remove an entry of nested dictionaries."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def text(file: str, content: str | bytes) -> Damage:
    """Replace the text of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda run: (run / file).write_bytes(data) and None  # type: ignore[func-returns-value]


def flipped(file: str, place: int) -> Damage:
    """Change one byte."""

    def damage(run: Path) -> None:
        data = bytearray((run / file).read_bytes())
        data[place] ^= 1
        (run / file).write_bytes(data)

    return damage


def both(damage: Callable[[str], Damage]) -> Damage:
    """Apply the same change to both checkpoints."""

    def twice(run: Path) -> None:
        damage(NEWEST)(run)
        damage(OLDER)(run)

    return twice


def fewer_tensors(folder: str) -> Damage:
    """A checkpoint with other tensors, whose manifest agrees with them."""

    def damage(run: Path) -> None:
        import hashlib

        file = run / folder / "tensors.safetensors"
        tensors = load_file(file)
        tensors.pop(next(name for name in tensors if ".net." in name))
        save_file(tensors, file)
        manifest = json.loads((run / folder / "manifest.json").read_text())
        manifest["sha256"]["tensors.safetensors"] = hashlib.sha256(file.read_bytes()).hexdigest()
        (run / folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def linked(folder: str) -> Damage:
    """Replace a part by a link to another place."""

    def damage(run: Path) -> None:
        file = run / folder / "numbers.json"
        file.rename(run / "elsewhere.json")
        file.symlink_to(run / "elsewhere.json")

    return damage


def a_folder(folder: str) -> Damage:
    """Replace a file by a folder."""

    def damage(run: Path) -> None:
        (run / folder / "tensors.safetensors").unlink()
        (run / folder / "tensors.safetensors").mkdir()

    return damage


def sums(change: Callable[[dict[str, str]], None]) -> Callable[[Any], None]:
    """Change the manifest's checksums."""
    return lambda manifest: change(manifest["sha256"])


def renamed(name: str) -> Callable[[dict[str, str]], None]:
    """Rename one part in the manifest."""

    def change(given: dict[str, str]) -> None:
        given[name] = given.pop("numbers.json")

    return change


MANIFEST, NUMBERS, CONFIG = "manifest.json", "numbers.json", "config.json"
DAMAGES: dict[str, Damage] = {
    # The configuration.
    "config: not JSON": text(CONFIG, "{"),
    "config: empty": text(CONFIG, ""),
    "config: binary": text(CONFIG, b"\xff\xfe\x00\x01"),
    "config: a list": text(CONFIG, "[]"),
    "config: null": text(CONFIG, "null"),
    "config: nested deep": text(CONFIG, "[" * 200_000 + "]" * 200_000),
    "config: no algorithm": edit(CONFIG, drop("algorithm")),
    "config: no env": edit(CONFIG, drop("config", "env")),
    "config: env is a list": edit(CONFIG, put("config", "env", value=[])),
    "config: run is text": edit(CONFIG, put("config", "run", value="x")),
    "config: agent is null": edit(CONFIG, put("config", "agent", value=None)),
    "config: low is a number": edit(CONFIG, put("config", "agent", "low", value=3)),
    "config: algorithm is a number": edit(CONFIG, put("algorithm", value=3)),
    "config: unknown algorithm": edit(CONFIG, put("algorithm", value="hirro")),
    "config: unknown option": edit(CONFIG, put("config", "agent", "wings", value=2)),
    "config: wrong kind": edit(CONFIG, put("config", "agent", "low", "learning_rate", value="fast")),
    "config: unknown env": edit(CONFIG, put("config", "env", "env", value="Nope-v0")),
    "config: env is null": edit(CONFIG, put("config", "env", "env", value=None)),
    "config: edited learning rate": edit(CONFIG, put("config", "agent", "low", "learning_rate", value=0.5)),
    "config: edited seed": edit(CONFIG, put("config", "run", "seed", value=7)),
    "config: other sizes": edit(CONFIG, put("config", "agent", "low", "hidden", value=[7])),
    "config: a class": edit(CONFIG, put("algorithm", value="hrl.agents.hiro:HIROConfig")),
    # A manifest.
    **{
        f"{where}: {name}": damage
        for where, folder in (("newest", NEWEST), ("both", ""))
        for name, damage in {
            "no manifest": (lambda f: lambda run: (run / f / MANIFEST).unlink()),
            "manifest: not JSON": (lambda f: text(f"{f}/{MANIFEST}", "{")),
            "manifest: nested deep": (lambda f: text(f"{f}/{MANIFEST}", "[" * 200_000)),
            "manifest: a list": (lambda f: text(f"{f}/{MANIFEST}", "[]")),
            "manifest: of another format": (lambda f: edit(f"{f}/{MANIFEST}", put("format", value=2))),
            "manifest: no sums": (lambda f: edit(f"{f}/{MANIFEST}", put("sha256", value={}))),
            "manifest: a part missing": (lambda f: edit(f"{f}/{MANIFEST}", drop("sha256", "numbers.json"))),
            "manifest: another name": (lambda f: edit(f"{f}/{MANIFEST}", sums(renamed("other.json")))),
            "manifest: an absolute path": (lambda f: edit(f"{f}/{MANIFEST}", sums(renamed("/etc/hostname")))),
            "manifest: a path upwards": (lambda f: edit(f"{f}/{MANIFEST}", sums(renamed("../../config.json")))),
            "manifest: sums are numbers": (lambda f: edit(f"{f}/{MANIFEST}", put("sha256", "numbers.json", value=3))),
            "manifest: other steps": (lambda f: edit(f"{f}/{MANIFEST}", put("steps", value=77))),
            "a file too many": (lambda f: text(f"{f}/extra.bin", "x")),
            "numbers changed": (lambda f: edit(f"{f}/{NUMBERS}", put("steps", value=3))),
            "numbers gone": (lambda f: lambda run: (run / f / NUMBERS).unlink()),
            "tensors: a byte changed": (lambda f: flipped(f"{f}/tensors.safetensors", -1)),
            "tensors: cut short": (lambda f: text(f"{f}/tensors.safetensors", b"\x08\x00")),
            "tensors: empty": (lambda f: text(f"{f}/tensors.safetensors", b"")),
            "tensors: a folder": a_folder,
            "a link": linked,
        }.items()
        for damage in [both(damage) if not folder else damage(folder)]  # type: ignore[arg-type]
    },
    "both: other tensors": both(fewer_tensors),
    "no checkpoints": lambda run: shutil.rmtree(run / "checkpoints"),
    "checkpoints is a file": lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").write_text("x")),  # type: ignore[func-returns-value]
}  # fmt: skip


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


def test_a_missing_checkpoint_folder_raises_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="contains no checkpoint"):
        Checkpoints(tmp_path / "nowhere").last()


def test_an_algorithm_must_be_an_object(tmp_path, capsys):
    for name in ("tasks:Ledger", "tasks:gives_a_class"):
        assert train.main([name, "--env", "X"]) == 2
        assert "is not an algorithm" in capsys.readouterr().err
    assert trained(tmp_path, "--total-steps", "100")
