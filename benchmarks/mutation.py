"""Mutation testing of the engine, memories, learners and nested gradients, with cosmic-ray (extra `mutation`).

    python benchmarks/mutation.py --each 6 --seed 1

Each mutant is one small change of a line, and a test that runs this line must fail. The tests of a line come from one
run of the suite under coverage, which is kept in build/mutation. The shortest of them run first, for about a minute.
Lines that run only at import, such as the defaults of options, are left out. Mutants are sampled with a seed, because
all of them would take days. The benchmark changes files of the working tree and restores them: run it in a separate
clone that is installed (`pip install -e '.[test,mutation]'`) and completely committed. It writes
results/mutation-<seed>.json, and prints the survivors with their lines.
"""

import ast
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome
from coverage import CoverageData
from running import RESULTS, ROOT

FOLDERS = ("hrl/memory", "hrl/hierarchy", "hrl/hierarchy/commands", "hrl/hierarchy/relabelling", "hrl/learners",
           "hrl/nested", "hrl/nested/levels")  # fmt: skip
EXCLUDED = re.compile(r"BitOr|ExceptionReplacer|RemoveDecorator")
"""Operators that change unions in type annotations, classes of exceptions, and decorators such as dataclass: most of
these changes break the import, and would count as killed without a test."""
MAP = ROOT / "build" / "mutation"
"""Folder of the suite's coverage and of its tests' durations."""
LONGEST, TIMEOUT = 60.0, 240.0
"""Seconds of tests per mutant, by their durations under coverage; and until a mutant's tests are stopped."""

Lines = dict[int, list[str]]
"""The tests that run each line, shortest first. A line that runs only at import has none."""


@dataclass
class Options:
    """Sample mutants, test them, and list the survivors."""

    each: int = 6
    """Mutants per module."""
    only: tuple[str, ...] = ()
    """Modules, such as hrl/memory/ring.py; all if none is given."""
    seed: int = 0
    """Seed of the sampling."""
    jobs: int = 2
    """Processes of the run under coverage."""


def main() -> None:
    """Test the sampled mutants of every module, and print the survivors."""
    options = tyro.cli(Options)
    if subprocess.run(["git", "diff", "--quiet"], cwd=ROOT, check=False).returncode:
        raise SystemExit("Commit first: mutants are put into the files of this working tree.")
    if not (MAP / "times.xml").exists():
        run_suite(options.jobs)
    file = RESULTS / f"mutation-{options.seed}.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    modules = [str(p.relative_to(ROOT)) for folder in FOLDERS for p in sorted((ROOT / folder).glob("*.py"))]
    for module in options.only or [m for m in modules if not m.endswith("__init__.py")]:
        if module not in results or options.only:
            results[module] = measure(module, options)
            file.write_text(json.dumps(results, indent=1) + "\n")
            done = results[module]
            print(f"{module}: {done['killed']} of {done['mutants']} killed", flush=True)
    killed, mutants = (sum(r[key] for r in results.values()) for key in ("killed", "mutants"))
    print(f"{killed} of {mutants} killed ({killed / max(mutants, 1):.1%}). Survivors:")
    for module, result in results.items():
        for one in result["survivors"]:
            print(f"--- {module}\n{one}")


def run_suite(jobs: int) -> None:
    """Run the suite once, and keep which tests run which lines, and how long each test takes."""
    MAP.mkdir(parents=True, exist_ok=True)
    measured = [f"--cov={folder.replace('/', '.')}" for folder in FOLDERS if folder.count("/") == 1]
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(jobs), *measured, "--cov-context=test",
             "--cov-report=", "--junitxml", str(MAP / "unfinished.xml"), "tests")  # fmt: skip
    subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=False, env=os.environ | {"COVERAGE_FILE": str(MAP / "coverage")}
    )
    (MAP / "unfinished.xml").rename(MAP / "times.xml")


def lines_of(module: str) -> Lines:
    """The passed tests of every line of a module that runs at all."""
    seconds: dict[str, float] = {}
    for case in ET.parse(MAP / "times.xml").iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        if case.find("failure") is None:
            seconds[name] = float(case.get("time", 0.0))
    data = CoverageData(str(MAP / "coverage"))
    data.read()
    contexts = data.contexts_by_lineno(str(ROOT / module))
    return {line: _shortest({name.partition("|")[0] for name in names}, seconds) for line, names in contexts.items()}


def _shortest(names: set[str], seconds: dict[str, float]) -> list[str]:
    """The shortest tests of a total of `LONGEST` seconds; at least one."""
    chosen: list[str] = []
    total = 0.0
    for name in sorted((n for n in names if n in seconds), key=lambda n: (seconds[n], n)):
        total += seconds[name]
        if chosen and total > LONGEST:
            break
        chosen.append(name)
    return chosen


def measure(module: str, options: Options) -> dict[str, Any]:
    """The numbers of sampled and killed mutants of one module, and the changes that its tests did not detect."""
    lines, first = lines_of(module), starts(module)
    fit = [mutant for mutant in mutants_of(module) if mutant.start_pos[0] in first]
    sample = random.Random(f"{options.seed} {module}").sample(fit, min(options.each, len(fit)))
    outcomes = [survival(mutant, lines, first[mutant.start_pos[0]]) for mutant in sample]
    survivors = [change for change in outcomes if change is not None]
    return {
        "mutants": len(sample), "killed": len(sample) - len(survivors), "survivors": survivors,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def mutants_of(module: str) -> list[MutationSpec]:
    """All changes of a module, except the `EXCLUDED` ones."""
    with tempfile.TemporaryDirectory() as place:
        config, session = Path(place) / "mutation.toml", Path(place) / "session.sqlite"
        config.write_text(
            f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {TIMEOUT}\nexcluded-modules = []\n'
            'test-command = "pytest"\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        words = ("-m", "cosmic_ray.cli", "init", str(config), str(session))
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
        with use_db(session, WorkDB.Mode.open) as work:
            mutants = [item.mutations[0] for item in work.pending_work_items]
    return [mutant for mutant in mutants if not EXCLUDED.search(mutant.operator_name)]


def starts(module: str) -> dict[int, int]:
    """Every line in the body of a function, with the body's first line."""
    nodes = ast.walk(ast.parse((ROOT / module).read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    spans = sorted((f.body[0].lineno, f.end_lineno or 0) for f in functions)  # inner functions last
    return {line: first for first, last in spans for line in range(first, last + 1)}


def survival(mutant: MutationSpec, lines: Lines, first: int) -> str | None:
    """The change that no test detected; None if a test failed. The tests are those of the mutant's line, or of the last
    line before it that runs, from the function's `first` line on."""
    ran = [line for line in lines if first <= line <= mutant.start_pos[0]]
    tests = lines[max(ran)] if ran else []
    if not tests:
        return f"line {mutant.start_pos[0]} runs in no test"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    result = mutate_and_test([mutant], shlex.join(command), TIMEOUT)
    return str(result.diff) if result.test_outcome == TestOutcome.SURVIVED else None


if __name__ == "__main__":
    main()
