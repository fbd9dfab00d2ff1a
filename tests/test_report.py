"""The report about runs: one HTML file, in a parser and in a real browser."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest

import hrl
from hrl.cli.main import report
from hrl.pretrained import FOLDER
from hrl.report.groups import Run, curves
from hrl.report.logger import Logger
from hrl.types import UserError

RUNS = ["pretrained/PointMaze_UMaze-v3/hiro", "pretrained/PointMaze_Large-v3/hiro"]
VOID = {"meta", "img", "link", "br", "use", "path"}


class Outline(HTMLParser):
    """Elements with their attributes, the text of table cells, and the tags that are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    assert report([*RUNS, "--out", str(file), "--episodes", "3", "--title", "Mazes <small & medium>"]) == 0
    return file


def test_a_report_is_one_accessible_document(written):
    text = written.read_text()
    page = Outline(text)
    assert not page.open and text.startswith("<!DOCTYPE html>") and page.all("html") == [{"lang": "en"}]
    assert not page.all("script") and not page.all("link") and not re.search(r"url\((?!#)", text)
    sources = [a.get("src") or a.get("href") or a.get("xlink:href") or "" for _, a in page.elements]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert "<title>Mazes &lt;small &amp; medium&gt;</title>" in text
    assert all(image["alt"] for image in page.all("img")) and len(page.all("img")) == 6
    assert [a["role"] for a in page.all("svg")] == ["img"] and "url(#c0-" in text
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1 and max(np.diff(headings)) <= 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids)) and all(link["href"][1:] in ids for link in page.all("a"))


def test_a_report_has_the_scores_and_the_settings_that_differ(written):
    rows = {row[0]: row[1:] for row in Outline(written.read_text()).rows if row}
    assert (
        rows["total_steps"] == ["35000", "280000"]
        and rows["low.train_freq"] == ["8", "24"]
        and rows["seed"] == ["0", "0"]
    )
    assert "low.gamma" not in rows  # the same in both
    expected = hrl.load(RUNS[0]).evaluate(3).summary()
    low, high = expected["success_rate_final_interval"]
    every = [row for row in Outline(written.read_text()).rows if row and row[0] == "success, final step"]
    assert every[0] == [
        "success, final step", f"{expected['success_rate_final']:.3f}", f"{low:.3f} to {high:.3f}"
    ]  # fmt: skip
    assert rows["PointMaze_UMaze-v3"][:2] == ["hiro", "1"]


def test_a_browser_shows_the_report_on_a_phone_and_in_print(written):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 740})
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(written.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 360 and not errors
        assert all(url.startswith(("file:", "data:")) for url in requests)
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 200)")
        assert page.locator("svg").bounding_box()["width"] > 300
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.emulate_media(color_scheme="dark")
        assert light == "rgb(255, 255, 255)" and page.evaluate(ground) != light
        page.emulate_media(color_scheme="dark", media="print")
        assert page.evaluate(ground) == light and not page.locator("nav").is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")
        browser.close()


def test_a_report_of_stored_evaluations_needs_no_environment(tmp_path):
    """The last row of the evaluations, and the last picture."""
    run = tmp_path / "run"
    shutil.copytree(FOLDER / "PointMaze_UMaze-v3" / "hiro", run)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"PointMaze_UMaze-v3"', '"Nowhere-v3"'))
    logger = Logger(run, resumed_at=10**9)
    for step in (1, 2):
        logger.picture("eval/trajectories", step, np.full((4, 6, 3), 100 * step, np.uint8))
    logger.close()
    assert report([str(run), "--episodes", "0", "--out", str(tmp_path / "a.html")]) == 0
    page = Outline((tmp_path / "a.html").read_text())
    reached = hrl.load(run).scalars()["eval/success_rate"]
    last = reached[~np.isnan(reached)][-1]
    (row,) = (row for row in page.rows if row[0] == "success, any step")
    assert row[1] == f"{last:.3f}" and row[2].endswith(" to 1.000")
    (image,) = page.all("img")
    assert image["alt"].endswith("after 2 steps")
    assert plt.imread(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))[0, 0, 0] == pytest.approx(200 / 255)


def test_bad_input_is_one_sentence(tmp_path, capsys):
    out = ["--out", str(tmp_path / "a.html")]
    for arguments, sentence in (
        ([str(tmp_path), *out], "is not a run folder"),
        ([RUNS[1], "--episodes", "0", *out], "was never evaluated during its training"),
        ([RUNS[0], "--out", str(tmp_path / "a.pdf")], "must end in .html"),
        ([RUNS[0], "--label", "a", "b", *out], "--label needs a name for each of the 1 runs"),
        (out, "Name at least one run folder"),
    ):
        assert report(arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and sentence in line
    assert not (tmp_path / "a.html").exists()


def test_curves_show_the_return_where_success_is_not_reported(tmp_path):
    def member(env: str, name: str, *rows: str) -> Run:
        path = tmp_path / f"{env}-{name}"
        path.mkdir()
        (path / "progress.csv").write_text("\n".join(rows) + "\n")
        return Run(path, env, "td3", {}, {}, name)

    head = "time/total_timesteps,eval/mean_reward,eval/success_rate"
    solved = member("Maze", "a", head, "10,1,0.5", "15,,", "20,2,1.0")
    swings = [member("Swing", name, head.rpartition(",")[0], f"10,{value}") for name, value in (("a", -3), ("b", -4))]
    silent = member("Maze", "b", "time/total_timesteps", "10")
    panels, values = curves({("Maze", "a"): [solved, silent], ("Swing", "a"): swings[:1], ("Swing", "b"): swings[1:]})
    assert values == "success rate or return of evaluations"
    (maze,) = panels["Maze"]["a"]
    assert maze.steps.tolist() == [10, 20] and maze.values.tolist() == [0.5, 1.0]
    assert [panels["Swing"][name][0].values.tolist() for name in "ab"] == [[-3], [-4]]
    assert curves({("Swing", "a"): swings})[1] == "return of evaluations"
    with pytest.raises(UserError, match="Learning curves need evaluations during training"):
        curves({("Maze", "b"): [silent]})
