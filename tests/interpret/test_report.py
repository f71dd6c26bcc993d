"""The page of a lake: nothing is left out, nothing is loaded, nothing that a stranger wrote becomes markup."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofmx import catalog
from neurofmx.evaluate import controls
from neurofmx.evaluate.decode import DecodeResult, decode
from neurofmx.evaluate.tasks import TASKS
from neurofmx.ingest.simulate import simulate
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.interpret import figures, figures_decode
from neurofmx.interpret.report import TEMPLATES, decode_page, write_report
from neurofmx.interpret.report_scores import CHANCE, CONTROL, OURS, UNTRAINED, score_blocks, tally
from neurofmx.lake import Lake
from neurofmx.provenance import digest_of
from neurofmx.types import Check, RawFile, Score

VOID = {"meta", "img", "input", "link", "br", "line", "rect", "circle", "path", "polyline"}
HOSTILE = '<script>alert("x")</script>'
REAL = "dandi:000140@0.220113.0408/sub-Jenkins_ses-small"
MADE = "simulated:one@1/sim-a-s1-1-0"


class Page(HTMLParser):
    """A parsed page: its tags with attributes, its text, and whether tags close in the order they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data.strip())


def score(task: str, predictor: str, value: float, **over: Any) -> dict[str, Any]:
    """A row of ``scores`` with example values; the interval is 0.04 to either side."""
    row = {
        "score_id": digest_of([task, predictor])[:16], "task": task, "predictor": predictor, "metric": "r2",
        "value": value, "ci_low": value - 0.04, "ci_high": value + 0.04, "n": 4200, "n_units": 10, "unit": "block",
        "split": "5f1c0a9b22d1e870", "recordings": [REAL], "checkpoint": "", "snapshot": "5" * 64, "seed": 0,
        "baseline": "", "delta": None, "delta_low": None, "delta_high": None, "verdict": "", "recipe": "",
        "details": json.dumps({"grid": [0.1, 1.0, 10.0], "chosen": 1.0}), "code_version": "0.1.0",
        "scored_at": "2026-01-05T10:00:00+00:00",
    }  # fmt: skip
    return row | over


def task_scores(task: str, ours: float, best: float, verdict: str, **over: Any) -> list[dict[str, Any]]:
    """Seven predictors of one task, the second of them the best tuned baseline."""
    delta = {
        "baseline": "wiener",
        "delta": ours - best,
        "delta_low": ours - best - 0.03,
        "delta_high": ours - best + 0.03,
    }
    return [
        score(task, "neurofmx", ours, checkpoint="run0", verdict=verdict, **delta, **over),
        score(task, "wiener", best, **over),
        score(task, "ridge", best - 0.09, baseline="wiener", delta=-0.09, delta_low=-0.11, delta_high=-0.07, **over),
        score(task, "kalman", best - 0.14, **over),
        score(task, "control: trials", 0.05, **over),
        score(task, "neurofmx untrained", 0.11, checkpoint="", **over),
        score(task, "chance", -0.01, **over),
    ]


def finding(name: str, status: str, value: float | None, **over: Any) -> dict[str, Any]:
    """A row of ``findings`` whose null is 199 draws around 0.1."""
    null = [] if value is None else np.random.default_rng(len(name)).normal(0.1, 0.03, 199).tolist()
    row = {
        "finding_id": f"f-{name}", "task": "reach", "analysis": name, "family": "probes", "subject": "block 2 of run0",
        "headline": "cross-validated R2 of a linear probe", "value": value, "null": null, "p": 0.005, "q": 0.02,
        "ci_low": None if value is None else value - 0.05, "ci_high": None if value is None else value + 0.05,
        "status": status, "reason": "", "scalars": json.dumps({"chance": 0.1, "rows": 4200.0}), "arrays": "{}",
        "caveats": [], "found_at": "2026-01-05T11:00:00+00:00",
        "provenance": json.dumps({"inputs": "ab12", "seed": "0", "role": "confirmatory"}),
    }  # fmt: skip
    return row | over


def transfer(source: str, target: str, gain: float, half: float) -> dict[str, Any]:
    """A cell of ``transfer`` whose interval is ``half`` to either side."""
    return {
        "cell_id": f"c-{source}-{target}", "matrix": "sessions", "source": source, "target": target, "metric": "r2",
        "value": 0.5 + gain, "scratch": 0.5, "random_init": 0.1, "gain": gain, "gain_low": gain - half,
        "gain_high": gain + half, "n": 900, "n_units": 6, "simulated": True, "differs": "relatedness_deg", "seed": 0,
        "snapshot": "5" * 64, "checkpoint": "run0", "details": json.dumps({"shuffled": 0.02}),
    }  # fmt: skip


def fill(lake: Lake) -> None:
    """One simulated recording of four streams, and example rows in every table that the page shows."""
    spec = SimSpec(seed=0, duration_s=20.0, n_units=8, lfp_channels=4, calcium_cells=4)
    raw = RawFile(path="spec.json", url="data:application/json;base64,e30=", sha256="a" * 64, size=2)
    warning = Check(name="rate_plausible", passed=False, severity="warn", evidence="unit 3 fires at 0.01 Hz")
    lake.publish_recording(simulate(spec, files=(raw,))[0], [warning])
    refusal = {
        "recording_id": "dandi:900001@draft/sub-a_ses-b", "released": False,
        "quarantined_at": "2026-01-05T09:00:00+00:00",
        "reasons": ["spike_times_finite: 3 of 900 times are NaN; finite times were expected", f"licence: {HOSTILE}"],
        "source_url": ["https://example.org/sub-a.nwb"], "raw_sha256": ["b" * 64],
    }  # fmt: skip
    catalog.put(lake, "quarantine", refusal["recording_id"], [refusal])
    listed = {"dataset_id": "sample:x@1", "archive": "sample", "licence": "CC0-1.0", "citation": HOSTILE, "n_listed": 3}
    catalog.put(lake, "datasets", "sample:x@1", [listed])
    tasks = [("reach", 0.61, 0.55, "better"), ("sleep", 0.40, 0.41, "equivalent"), ("grip", 0.31, 0.45, "worse"),
             ("maze", 0.52, 0.50, "undecided"), ("song", 0.33, 0.30, "within one recording")]  # fmt: skip
    for task, ours, best, verdict in tasks:
        catalog.put(lake, "scores", task, task_scores(task, ours, best, verdict))
    catalog.put(lake, "scores", "lorenz", task_scores("lorenz", 0.9, 0.8, "better", recordings=[MADE]))
    history = [{"step": s, "train": 1 / (1 + s / 20), "valid": 0.3 + 0.7 / (1 + s / 15)} for s in range(0, 200, 10)]
    for fold in range(3):
        run = {
            "run_id": f"run{fold}", "recipe": "laptop", "recipe_digest": "d1", "recipe_json": '{"seed": 0}',
            "fold": fold, "seed": 0, "snapshot": "5" * 64, "tasks": ["reach", HOSTILE],
            "recordings": [MADE], "path": "runs/x", "steps": 200,
            "parameters": 120_000, "best_valid": 0.35 + fold / 100, "seconds": 12.5,
            "history": json.dumps([h | {"valid": h["valid"] + fold / 50} for h in history]), "code_version": "0.1.0",
            "started_at": "2026-01-05T09:30:00+00:00",
        }  # fmt: skip
        catalog.put(lake, "runs", run["run_id"], [run])
    names = ["sim-a-s1", "sim-a-s2", "sim-b-s1"]
    gains = [[None, 0.12, -0.08], [0.10, None, 0.01], [-0.11, 0.02, None]]
    cells = [transfer(s, t, g, 0.03) for s, row in zip(names, gains) for t, g in zip(names, row) if g is not None]
    catalog.put(lake, "transfer", "sessions", cells)
    found = [
        finding("linear_probe", "significant", 0.34),
        finding("probe_gain", "not significant", 0.11, p=0.4, q=float("nan")),
        finding("cka", "inconclusive", 0.15, family="similarity", reason="19 surrogates reach p 0.05 at best"),
        finding("cca", "invalid", None, family="similarity", reason="x is constant: every row is the same"),
        finding("rsa", "skipped", None, family="similarity", reason="no stimulus here", caveats=[HOSTILE]),
    ]  # fmt: skip
    catalog.put(lake, "findings", "reach", found)
    catalog.put(lake, "splits", "reach", [{"split_id": "5f1c0a9b22d1e870", "task": "reach", "recording_id": REAL,
                                           "unit": f"b{i}", "fold": i % 5} for i in range(10)])  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake.open(tmp_path_factory.mktemp("filled"))
    fill(lake)
    return lake


@pytest.fixture(scope="module")
def written(filled: Lake) -> Path:
    return write_report(filled, filled.root / "report.html")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text())


def test_every_number_and_every_refusal_is_on_the_page(filled: Lake, page: Page) -> None:
    for table, column in (
        ("scores", "score_id"),
        ("findings", "finding_id"),
        ("transfer", "cell_id"),
        ("runs", "run_id"),
    ):
        for row in catalog.rows(filled, table):
            assert row[column] in page.text, (table, row[column])
    for row in catalog.rows(filled, "quarantine"):
        assert row["recording_id"] in page.text
        assert all(reason in page.text for reason in row["reasons"])
    assert "unit 3 fires at 0.01 Hz" in page.text
    assert all(table in page.text for table in catalog.TABLES)


def test_tags_close_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10
    links = [a["href"] for t, a in page.tags if t == "a"]
    assert {link[1:] for link in links if link} <= set(ids)


def test_nothing_is_loaded_and_no_stranger_writes_markup(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count(HOSTILE) >= 4  # a reason, a citation, a task and a caveat, as text
    assert not re.search(r"url\(|@import|https?:", (TEMPLATES / "report.css").read_text())
    assert not re.search(r"fetch\(|https?:|import\(", (TEMPLATES / "report.js").read_text())


def test_a_picture_a_modality_with_words(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    for modality in ("spikes", "lfp", "calcium", "behaviour"):
        assert sum(f"the {modality} of" in (image["alt"] or "") for image in images) == 1
    assert all(a.get("aria-label") for t, a in page.tags if t == "svg" and a.get("role") == "img")


def test_a_loss_is_said_in_words_and_ladders_are_apart(page: Page) -> None:
    assert "On 5 tasks of real recordings, our model against the best tuned baseline is better on 1" in page.text
    assert "worse on 1" in page.text
    assert "On 1 task of simulated recordings" in page.text
    assert "Our model (0.310) loses to wiener, the best tuned baseline (0.450): difference \u22120.140" in page.text


def test_exploratory_findings_are_not_counted_and_say_so(lake: Lake, tmp_path: Path) -> None:
    rows = [finding("cka", "significant", 0.3, q=None), finding("linear_probe", "significant", 0.3)]
    catalog.put(lake, "findings", "reach", rows)
    page = Page(write_report(lake, tmp_path / "report.html").read_text())
    assert re.search(r"confirmatory findings significant\s+1 / 1", page.text)
    assert page.text.count("p is not corrected for the number of tests") == 1


def test_a_local_folder_is_not_given_away(lake: Lake, tmp_path: Path) -> None:
    refusal = {"recording_id": "folder:mine@local/a", "reasons": ["broken"], "raw_sha256": [], "released": True,
               "source_url": ["file:///home/jane%20doe/a%20b.nwb", "file:///home/jane/c.nwb"]}  # fmt: skip
    catalog.put(lake, "quarantine", "a", [refusal])
    page = Page(write_report(lake, tmp_path / "report.html").read_text())
    assert "a b.nwb and 1 more" in page.text
    assert "jane" not in page.text
    assert "let in by a person" in page.text


def test_the_same_lake_gives_the_same_bytes(filled: Lake, written: Path, tmp_path: Path) -> None:
    again = write_report(filled, tmp_path / "again.html").read_bytes()
    assert again == written.read_bytes()
    assert len(again) < 3_000_000


def test_an_empty_lake_says_what_is_missing(lake: Lake, tmp_path: Path) -> None:
    page = Page(write_report(lake, tmp_path / "deep" / "report.html").read_text())
    assert page.open == []
    for command in ("neurofmx ingest --all", "neurofmx train", "neurofmx evaluate", "neurofmx interpret"):
        assert command in page.text
    assert "Nothing is scored in this lake yet." in page.text


def test_predictors_are_named_as_the_scores_name_them() -> None:
    # read, not imported: its imports cost seconds
    names = (Path(TEMPLATES).parents[1] / "evaluate" / "predict.py").read_text()
    assert f'CHANCE, OURS, UNTRAINED = "{CHANCE}", "{OURS}", "{UNTRAINED}"' in names
    assert controls.TRIALS.startswith(CONTROL)


def decoded(kind: str) -> DecodeResult:
    """What decode returns, with example numbers: two dimensions over 400 bins, or two classes over 60 trials."""
    recording = simulate(SimSpec(seed=1, duration_s=20.0, n_units=6))[0]
    task = next(t for t in TASKS.values() if t.target.kind == kind)
    random = np.random.default_rng(0)
    rows = task_scores(task.name, 0.6, 0.5, "within one recording", recordings=[str(recording.id)])
    if kind == "class":
        truth = random.integers(0, 2, 60)
        predicted, names = np.eye(2)[truth ^ (random.random(60) < 0.2)], ("left", HOSTILE)
    else:
        truth = random.normal(size=(400, 2)).cumsum(axis=0)
        predicted, names = truth + random.normal(size=(400, 2)), ("vx", HOSTILE)
    return DecodeResult(recording=recording, task=task, scores=tuple(map(as_score, rows)), truth=truth, lake=None,
                        predicted=predicted, names=names, times_s=np.arange(len(truth)) * 0.05)  # fmt: skip


def as_score(row: dict[str, Any]) -> Score:
    """A row of ``scores`` as the Score that it was."""
    nan = float("nan")
    kept = {f.name: row[f.name] for f in fields(Score) if f.name in row}
    pair = (nan, nan) if row["delta"] is None else (row["delta_low"], row["delta_high"])
    kept |= {"delta": nan if row["delta"] is None else row["delta"], "recordings": tuple(row["recordings"])}
    return Score(**kept, ci95=(row["ci_low"], row["ci_high"]), delta_ci95=pair)


@pytest.mark.parametrize("kind", ["continuous", "class"])
def test_page_of_one_decoded_recording(kind: str, tmp_path: Path) -> None:
    result = decoded(kind)
    page = Page(decode_page(result, tmp_path / "decode.html").read_text())
    assert page.open == []
    assert all(score.score_id in page.text for score in result.scores)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert HOSTILE[:6] in page.text
    assert "this holds within one recording" in page.text
    assert result.task.question in page.text


@pytest.mark.slow
def test_page_of_a_recording_that_was_really_decoded(lake: Lake, tmp_path: Path) -> None:
    recording = simulate(SimSpec(seed=2, duration_s=60.0, n_units=10))[0]
    result = decode(recording, lake=lake)
    page = Page(decode_page(result, tmp_path / "decode.html").read_text())
    assert page.open == []
    assert len([a for t, a in page.tags if t == "path" and a.get("class") == "l-ours"]) == len(result.names)
    report = Page(write_report(lake, tmp_path / "report.html").read_text())
    assert all(score.score_id in page.text and score.score_id in report.text for score in result.scores)


def test_a_line_breaks_where_time_is_left_out() -> None:
    times, values = np.array([0.0, 1.0, 2.0, 9.0, 10.0]), np.array([0.0, 1.0, np.nan, 2.0, 3.0])
    drawn = str(figures_decode.traces(times, np.arange(5.0), values, about="x"))
    assert [path.count("M") for path in re.findall(r' d="([^"]*)"', drawn)] == [2, 2]


def test_confusion_counts_each_class() -> None:
    truth, told = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    drawn = str(figures_decode.confusion(truth, told, ("a", "b")))
    assert "a told as b: 1 of 3" in drawn
    assert "0.75 told right" in drawn


def test_none_of_a_kind_is_counted_not_left_out() -> None:
    rows = task_scores("reach", 0.61, 0.55, "better")
    said = tally(score_blocks(rows, {}))["sentences"]
    assert said == [
        "On 1 task of real recordings, our model against the best tuned baseline is better on 1 and worse on none."
    ]


def test_scores_of_two_splits_are_not_compared() -> None:
    rows = task_scores("reach", 0.6, 0.5, "better") + task_scores("reach", 0.4, 0.5, "worse", split="other")
    assert [(b["split"], b["verdict"]) for b in score_blocks(rows, {})] == [
        ("5f1c0a9b22d1e870", "better"),
        ("other", "worse"),
    ]


@pytest.mark.parametrize(
    "values", [[0.2, 0.9], [-1e-9, 1e-9], [5.0], [1e6, 3e6], [None, float("nan")], [-0.31, 0.02, 0.5]]
)
def test_axis_holds_its_values_and_ticks(values: list[float | None]) -> None:
    axis = figures.axis_over(values)
    assert 2 <= len(axis.ticks) <= 8
    held = [v for v in values if figures.known(v)]
    assert all(axis.low <= v <= axis.high for v in (*held, *axis.ticks) if v is not None)
    assert all(0 < axis.at(v) < 100 for v in held if v is not None)


def test_number_for_reading() -> None:
    assert [figures.number(v) for v in (None, float("nan"), 0.0, -0.1234, 12345.678)] == [
        "–",
        "–",
        "0.000",
        "\u22120.123",
        "12,345.7",
    ]
    assert figures.number(0.0001) == "1.00e\u221204"
    assert figures.number(0.5, 2, sign=True) == "+0.50"
    assert figures.number(-0.0001, fixed=True) == "0.000"


def test_decimals_are_shared_and_show_something() -> None:
    assert figures.decimals([0.5, 0.0001, None]) == 3
    assert figures.decimals([2e-5, float("nan")]) == 7
    (block,) = score_blocks([score("t", "chance", 3e-5, metric="mse")], {})
    assert block["rows"][0]["ci"] == "\u22120.0399700 to 0.0400300"


def test_heat_map_marks_negative_and_certain_cells() -> None:
    cells = [transfer("a", "b", -0.2, 0.05), transfer("b", "a", 0.1, 0.3)]
    drawn = str(figures.heat_map(cells, about="test"))
    assert drawn.count('class="negative"') == drawn.count('class="positive"') == drawn.count('class="sure"') == 1
    assert drawn.count('class="missing"') == 2
    assert "gain \u22120.200, 95% \u22120.250 to \u22120.150; n 900, 6 units; checkpoint run0" in drawn


def _colours() -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    css = (TEMPLATES / "report.css").read_text()
    pairs = re.findall(r"--(\w+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\)", css)
    return {name: (_rgb(light), _rgb(dark)) for name, light, dark in pairs}


def _rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Contrast ratio of two sRGB colours, WCAG 2.2."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: tuple[float, ...]) -> float:
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_contrast_in_both_themes(theme: int) -> None:
    colours = {name: pair[theme] for name, pair in _colours().items()}
    for text in ("ink", "muted", "ours", "best", "good", "bad"):
        for ground in ("ground", "surface", "quiet"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    counted = ((1.0, 1.0, 1.0), _rgb("14171a"))[theme]  # numbers on the bar of verdicts
    assert all(contrast(counted, colours[ground]) >= 4.5 for ground in ("good", "ours", "muted", "bad"))
    for cell in ("positive", "negative"):
        share = figures.MOST_OPAQUE
        mixed = tuple(share * c + (1 - share) * s for c, s in zip(colours[cell], colours["surface"]))
        assert contrast(colours["ink"], mixed) >= 4.5, cell
