"""Damages of run folders, by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

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
