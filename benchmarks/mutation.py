"""Mutation testing of the engine, memories, learners and nested gradients, with cosmic-ray (extra `mutation`).

    python benchmarks/mutation.py --each 8

Each mutant changes one line of a module, and the module's tests must fail. Mutants are sampled with a seed, because all
of them would take days. The benchmark changes files of the working tree and restores them: run it in a separate clone
that is installed (`pip install -e '.[test,mutation]'`) and completely committed. It writes results/mutation.json, and
prints the survivors with their lines.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkItem, WorkResult
from running import RESULTS, ROOT

TESTS = {
    "hrl/memory": "replay levels choices on_policy laws behaviour tuning",
    "hrl/hierarchy/relabelling": "replay levels choices",
    "hrl/hierarchy/commands": "levels replay goals behaviour",
    "hrl/hierarchy": "levels laws behaviour exploration timescales choices on_policy learners",
    "hrl/learners": "traces choices on_policy learners protection policies",
    "hrl/nested/levels": "tuning reward adaptation",
    "hrl/nested": "nested trust tuning",
}
"""The tests of each folder's modules; the longest matching folder applies."""
EXCLUDED = re.compile(r"BitOr|ExceptionReplacer|RemoveDecorator")
"""Operators that change unions in type annotations, classes of exceptions, and decorators such as dataclass: most of
these changes break the import, and would count as killed without a test."""


@dataclass
class Options:
    """Sample mutants, test them, and list the survivors."""

    each: int = 8
    """Mutants per module."""
    only: tuple[str, ...] = ()
    """Modules, such as hrl/memory/ring.py; all if none is given."""
    seed: int = 0
    """Seed of the sampling."""


def main() -> None:
    """Test the sampled mutants of every module, and print the survivors."""
    options = tyro.cli(Options)
    if subprocess.run(["git", "diff", "--quiet"], cwd=ROOT, check=False).returncode:
        raise SystemExit("Commit first: mutants are put into the files of this working tree.")
    file = RESULTS / "mutation.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    modules = [str(p.relative_to(ROOT)) for folder in TESTS for p in sorted((ROOT / folder).glob("*.py"))]
    for module in options.only or [m for m in dict.fromkeys(modules) if not m.endswith("__init__.py")]:
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


def measure(module: str, options: Options) -> dict[str, Any]:
    """The numbers of sampled and killed mutants of one module, and the changes that its tests did not detect."""
    folder = max((name for name in TESTS if module.startswith(name)), key=len)
    tests = " ".join(
        f"tests/test_{name}.py" for name in TESTS[folder].split() if (ROOT / f"tests/test_{name}.py").exists()
    )
    with tempfile.TemporaryDirectory() as place:
        config, session = Path(place) / "mutation.toml", Path(place) / "session.sqlite"
        config.write_text(
            f"""[cosmic-ray]
module-path = "{module}"
timeout = 180.0
excluded-modules = []
test-command = "{sys.executable} -m pytest -x -q -n0 -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""
        )
        _cosmic_ray("init", str(config), str(session))
        with use_db(session, WorkDB.Mode.open) as work:
            _draw(work, random.Random(f"{options.seed} {module}"), options.each)
        _cosmic_ray("exec", str(config), str(session))
        with use_db(session, WorkDB.Mode.open) as work:
            tested = [result for _, result in work.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    survivors = [str(r.diff) for r in tested if not r.is_killed]
    return {
        "mutants": len(tested), "killed": len(tested) - len(survivors), "survivors": survivors,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def _draw(work: WorkDB, chance: random.Random, count: int) -> None:
    """Skip all mutants except a random sample."""
    items: list[WorkItem] = list(work.pending_work_items)
    fit = [item for item in items if not EXCLUDED.search(item.mutations[0].operator_name)]
    kept = {item.job_id for item in chance.sample(fit, min(count, len(fit)))}
    for item in items:
        if item.job_id not in kept:
            work.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))


def _cosmic_ray(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
