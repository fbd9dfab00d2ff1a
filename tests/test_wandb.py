"""Weights & Biases without a network: its offline file has every scalar that progress.csv has."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hrl_scripts import train
from runs import LINE, run_of, trained

import hrl
from hrl.report.logger import STEPS

BLOCK = 32768
offline = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


def history(file: Path) -> list[dict[str, float]]:
    """The logged rows of an offline file: protocol buffers in the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = file.read_bytes(), 7, b""
    rows = []
    while place + 7 <= len(data):
        room = BLOCK - place % BLOCK
        if room < 7:
            place += room
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part = (part if kind in (3, 4) else b"") + data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows += [{name: float(x) for name, x in items.items() if not name.startswith("_")}] if items else []
    return rows


@offline
def test_an_offline_run_has_every_scalar(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert train.main(["hiro", *LINE, "--log-dir", str(tmp_path), "--wandb"]) == 0
    run = hrl.load(run_of(tmp_path))
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    logged, columns = history(file), run.scalars()
    assert len(logged) == len(columns[STEPS]) > 5
    for i, row in enumerate(logged):
        mine = {name: x[i] for name, x in columns.items() if not np.isnan(x[i])}
        assert row.keys() == mine.keys()
        np.testing.assert_allclose([row[name] for name in mine], list(mine.values()), rtol=1e-6)
    assert run.evaluate(1).summary()["episodes"] == 1  # evaluating logs nothing
    assert len(list(run.path.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_a_run_is_silent_without_the_option_and_clear_without_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hrl.api.wandb.find_spec", lambda name: None)
    arguments = ["--total-steps", "100", "--eval-freq", "0"]
    run = trained(tmp_path / "without", *arguments)
    assert not (run / "wandb").exists() and "wandb" not in capsys.readouterr().err
    assert train.main(["hiro", *LINE, *arguments, "--log-dir", str(tmp_path / "with"), "--wandb"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --wandb needs the package wandb: pip install 'nested-hrl[wandb]'.\n"
    assert not (tmp_path / "with").exists()
