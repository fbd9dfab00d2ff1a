"""Shows the packages to the API reference as they install: `agents/` and `envs/` stand under `hrl`.

The reference reads source files, so it needs them in one folder; they are copied to a temporary one.
"""

import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).parent.parent
PLACES = {"hrl": "hrl", "agents": "hrl/agents", "envs": "hrl/envs"}
copies: list[Path] = []


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: MkDocsConfig) -> None:
    """Copy the packages, and add their folder to the reference's search path."""
    folder = Path(tempfile.mkdtemp(prefix="hrl-reference-"))
    for name, place in PLACES.items():
        shutil.copytree(ROOT / name, folder / place, ignore=shutil.ignore_patterns("__pycache__"))
    plugin = config.plugins["mkdocstrings"]
    plugin.config["handlers"]["python"]["paths"] = [str(folder)]
    copies.append(folder)


def on_shutdown() -> None:
    """Remove the copies."""
    while copies:
        shutil.rmtree(copies.pop(), ignore_errors=True)
