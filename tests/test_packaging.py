"""The package as users get it: its metadata, its command lines, and a wheel outside the repository."""

import os
import re
import subprocess
import sys
import time
import venv
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
from hrl_scripts import train
from runs import ROOT, run_of

import hrl
from hrl.cli.main import main


def test_metadata_citation_and_changelog_agree():
    python = [c.rpartition(" ")[2] for c in metadata("nested-hrl").get_all("Classifier") or [] if "Python :: 3." in c]
    assert python == ["3.11", "3.12", "3.13", "3.14"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # What the format's schema 1.2.0 requires, and the types of what is there.
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software" and citation["license"] == "MIT" and citation["version"] == hrl.__version__
    assert all({"name"} <= a.keys() or {"family-names", "given-names"} <= a.keys() for a in citation["authors"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(citation["date-released"]))
    assert len(set(citation["keywords"])) == len(citation["keywords"])
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased" and hrl.__version__ == versions[1]


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_a_script_of_a_package_that_is_not_installed_says_how_to_install_it(script):
    code = f"import runpy, sys; sys.modules['hrl.agents'] = None; runpy.run_path({script!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "hrl.agents" in done.stderr
    assert done.stderr.endswith("Install the package in this Python first: pip install -c constraints.txt -e .\n")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_the_command_hrl(capsys):
    assert main(["--version"]) == main(["train", "--version"]) == main(["evaluate", "--version"]) == 0
    assert capsys.readouterr().out.split() == [hrl.__version__] * 3
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ("train", "evaluate", "report"))
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "error: There is no command trian; choose train, evaluate, report.\n"


def test_help_comes_within_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    loaded = "import sys, hrl.cli.main as m; m.train(['--help']); assert not {'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True)
    assert min(seconds) < 1


def test_terminals_and_files_need_no_particular_encoding(tmp_path):
    """In an ASCII terminal, a question mark replaces ±; files are UTF-8 everywhere."""
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}

    def out(*words: str) -> str:
        command = [sys.executable, "-W", "default::EncodingWarning", *words]
        done = subprocess.run(command, env={**os.environ, **ascii_only}, capture_output=True, text=True)
        warned = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and f"{ROOT}/" in line]
        assert not done.returncode and not warned, done.stderr
        return done.stdout

    words = ["--env", "tasks:GoalLine-v0", "--preset", "debug", "--total-steps", "300", "--log-dir", str(tmp_path)]
    beside = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); sys.argv[0] = 'train.py'; "
    assert "within ?" in out("-c", f"{beside}from hrl.cli.main import train; train({['hiro', *words]!r})")
    (run,) = (path.parent for path in tmp_path.rglob("config.json"))
    program = f"run = hrl.load({str(run)!r}, trust=True); print(hrl.write_report([run], {str(tmp_path / 'r.html')!r}))"
    assert "r.html" in out("-c", f"{beside}import hrl; {program}")


def test_bash_completes_algorithms_and_options(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(["hdqn", "--tyro-print-completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = 'source ./script; COMP_WORDS=(train.py --total-s); COMP_CWORD=1; {}; echo "${{COMPREPLY[@]}}"'
    function = re.findall(r"complete -F (\S+)", (tmp_path / "script").read_text())[0]
    answer = subprocess.run(["bash", "-c", asked.format(function)], cwd=tmp_path, capture_output=True, text=True)
    assert answer.stdout.split() == ["--total-steps"], answer.stderr


@pytest.mark.slow
def test_the_wheel_runs_outside_the_repository(tmp_path):
    pytest.importorskip("build", reason="build is not installed")
    # A copy, since the build leaves files beside the sources.
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "source")], check=True)
    subprocess.run([sys.executable, "-m", "build", "-o", str(tmp_path / "dist"), str(tmp_path / "source")], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1  # the wheel was built from it
    venv.create(tmp_path / "env", with_pip=False)
    python, place = tmp_path / "env/bin/python", tmp_path / "away"
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    # The dependencies only: the links of editable installs in these folders are not followed from here.
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    install = ["--python", str(python), "install", "-q", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    place.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run(str(python), "-c", "import hrl; print(hrl.__file__)").strip()).is_relative_to(tmp_path / "env")
    scripts = tmp_path / "env/bin"
    assert run(str(scripts / "hrl"), "--version").strip() == hrl.__version__
    options = ["hiro", "--env", "PointMaze_UMaze-v3", "--preset", "debug", "--progress", "False"]
    assert "hrl-evaluate runs/" in run(str(scripts / "hrl-train"), *options)
    trained = str(run_of(place))
    assert '"episodes": 1,' in run(str(scripts / "hrl-evaluate"), trained, "--episodes", "1", "--json")
    run(str(scripts / "hrl"), "report", trained, "pretrained/PointMaze_UMaze-v3/hiro", "--episodes", "1")
    assert (place / "report.html").stat().st_size > 50_000
