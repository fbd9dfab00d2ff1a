"""The speed table: ratios whose two sides are measured in the same run.

    python benchmarks/speed.py                      # every row on the CPU (k needs a GPU); --rows a b for some
    python benchmarks/speed.py --device cuda        # on a GPU

Each ratio is measured as A B A B …. The table has the median and the range of the repeats, and is stored as JSON in
results/speed-<device>.json. `benchmarks/race.py` measures row h, the wall-clock time to 90 % success, and takes long.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
import tyro
from floor import floor
from measuring import Options, Row
from rows import full_loop, levels, memory, updates
from rows_choices import dqn_updates, ppo_steps
from running import processor
from stable_baselines3 import SAC, TD3
from stepping import ants, collecting, gpu_ants, overlap, throughput, training

from hrl.agents.flat import FlatSAC, FlatTD3
from hrl.execution.modes import keep_freed_memory

ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "a": lambda o: updates(o, "a", FlatTD3, TD3),
    "b": lambda o: updates(o, "b", FlatSAC, SAC),
    "c": collecting,
    "d": full_loop,
    "e": levels,
    "f": throughput,
    "g": memory,
    "i": overlap,
    "j": ants,
    "k": gpu_ants,
    "l": training,
    "m": dqn_updates,
    "n": ppo_steps,
    "floor": floor,
}


def main() -> None:
    """Measure the rows, print them, and write them to the file."""
    options = tyro.cli(Options)
    keep_freed_memory()
    threads = options.threads or torch.get_num_threads()
    for name in options.rows:
        torch.set_num_threads(threads)  # a row may have changed them to its preset's
        rows = []
        for row in ROWS[name](options):
            rows.append(row)
            print(line(row), flush=True)
        keep(name, rows, options)


def keep(name: str, rows: list[Row], options: Options) -> None:
    """Replace a row's lines in the results file."""
    machine = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    host = {
        "machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"), "repeats": options.repeats,
        "clock": options.clock, "load": os.getloadavg()[0],
    }  # fmt: skip
    options.out.mkdir(exist_ok=True)
    file = options.out / f"speed-{options.device}.json"
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    kept = [r for r in kept if r["row"] != name] + [{**asdict(r), **host} for r in rows]
    file.write_text(json.dumps({"rows": sorted(kept, key=lambda r: r["row"])}, indent=1) + "\n")


def line(row: Row) -> str:
    """A row as a line of a Markdown table."""
    spread = f" ({row.least:.2f} to {row.most:.2f})" if row.most else ""
    extra = "; ".join(f"{n}: {x:,}" for n, x in row.extra.get("curve", {}).items())
    cells = (row.row, row.name, f"{row.ours:,.0f}", f"{row.peer:,.0f}", row.unit, f"{row.ratio:.2f}{spread}", row.bar)
    return f"| {' | '.join(cells)} | {row.floor}{extra} |"


if __name__ == "__main__":
    main()
