"""The API reference names everything public, and everything public is documented and typed."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from runs import ROOT

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
FOLDERS = {"hrl": "hrl", "hrl.agents": "agents", "hrl.envs": "envs"}
COMMAND_LINE = "hrl.cli"
Definition = ast.FunctionDef | ast.ClassDef


def module_files():
    """Every module of the packages as they install, with its file, except the command line's."""
    files = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            if not name.startswith(COMMAND_LINE):
                files[name] = path
    return files


def definitions(body):
    """The public functions and classes of a module's or class's body."""
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def exported(name, text):
    """Full names, at their definition, of what a package lists in `__all__`."""
    if "__all__" not in text:
        return []
    package = importlib.import_module(name)
    things = [getattr(package, attribute) for attribute in package.__all__]
    ours = [x for x in things if hasattr(x, "__qualname__") and x.__module__.startswith("hrl.")]  # no aliases of types
    return [f"{x.__module__}.{x.__qualname__}" for x in ours]


def missing(reference, names):
    """Names that neither a directive nor that of an object around them shows."""
    shown = set(DIRECTIVE.findall(reference))
    outer = lambda name: (name.rsplit(".", i)[0] for i in range(name.count(".") + 1))  # noqa: E731
    return [name for name in names if not shown & set(outer(name))]


def faults(name, body):
    """What a body's public definitions lack: docstrings and types of arguments and results."""
    found = []
    for node in definitions(body):
        own = f"{name}.{node.name}"
        if not ast.get_docstring(node):
            found.append(f"{own} has no docstring")
        if isinstance(node, ast.ClassDef):
            found += faults(own, node.body)
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        found += [f"{own} does not type {argument}" for argument in untyped]
        if node.returns is None:
            found.append(f"{own} does not type its result")
    return found


FILES = module_files()
REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs/api").glob("*.md")))


def test_the_reference_shows_everything_public():
    names = []
    for name, path in FILES.items():
        text = path.read_text()
        names += [f"{name}.{node.name}" for node in definitions(ast.parse(text).body)] + exported(name, text)
    assert len(names) > 500
    assert not missing(REFERENCE, names)


def test_the_reference_shows_only_what_exists():
    for name in DIRECTIVE.findall(REFERENCE):
        module = next(outer for i in range(3) if (outer := name.rsplit(".", i)[0]) in FILES)
        tree = ast.parse(FILES[module].read_text())
        inner = [part for part in name[len(module) + 1 :].split(".") if part]
        named = {x.name for x in definitions(tree.body)} | {
            x.id for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign) for x in ast.walk(n)
            if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)
        }  # fmt: skip
        assert set(inner) <= named, name


@pytest.mark.parametrize("package", FOLDERS)
def test_everything_public_has_a_docstring_and_types(package):
    found = []
    for name, path in FILES.items():
        if max((p for p in FOLDERS if name.startswith(p)), key=len) == package:
            found += faults(name, ast.parse(path.read_text()).body)
    assert not found


def test_what_is_missing_is_found():
    reference = "::: hrl.a\n\n::: hrl.b.C\n"
    names = ["hrl.a.f", "hrl.a.B.g", "hrl.b.C", "hrl.b.C.h", "hrl.b.d", "hrl.ab.e"]
    assert missing(reference, names) == ["hrl.b.d", "hrl.ab.e"]
    body = ast.parse(
        "def f(x, *, y: int) -> int:\n  '''F.'''\nclass C:\n  def g(self): '''G.'''\n  def _h(self): ...\n"
    ).body
    assert faults("m", body) == ["m.f does not type x", "m.C has no docstring", "m.C.g does not type its result"]
    assert isinstance(FILES["hrl.agents.hiro"], Path)
