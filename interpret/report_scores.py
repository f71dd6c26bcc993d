"""Scores as a page tells them: one block a task, in words first, then a figure, then every number with its id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from neurofmx.evaluate.metrics import METRICS
from neurofmx.interpret import figures
from neurofmx.interpret.figures import number
from neurofmx.types import RecordingId, Score

if TYPE_CHECKING:
    from neurofmx.evaluate.spec import TaskSpec

# as evaluate.predict names them; it is not imported, since a page needs no torch
OURS, UNTRAINED, CHANCE, CONTROL = "neurofmx", "neurofmx untrained", "chance", "control: "
SIMULATED = "simulated"  # the archive whose recordings are made, not measured
# verdict -> (how it is counted, in a sentence), in the order in which a page counts them
VERDICTS = {
    "better": "better",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "worse": "worse",
    "within one recording": "within one recording",
    "": "not compared",
}
UNTOLD = {"question": "", "split": "", "caveats": ()}  # of a task that is no longer declared
SPLITS = {
    "blocks": "blocks of time inside each recording",
    "trial_groups": "groups of trials inside each recording",
    "recordings": "whole recordings",
}


def row_of(score: Score) -> dict[str, Any]:
    """A score as a row of the catalog's ``scores``."""
    row = asdict(score)
    (row["ci_low"], row["ci_high"]), (row["delta_low"], row["delta_high"]) = row.pop("ci95"), row.pop("delta_ci95")
    return row | {"recordings": list(score.recordings)}


def task_text(task: TaskSpec) -> dict[str, Any]:
    """What a reader must know of a task beside its numbers."""
    held_out = {"subject_id": "whole subjects", "session": "whole sessions"}.get(task.group, SPLITS[task.split])
    how = f"{held_out}, {task.n_folds} folds"
    if task.split == "blocks":
        how += f", {task.n_blocks} blocks with a gap of {number(task.gap_s, 1)} s at each border"
    how += f"; predictors closer than {number(task.margin, 2)} count as equivalent"
    return {"question": task.question, "split": how, "caveats": task.caveats}


def is_simulated(recording: str) -> bool:
    """Whether a recording was made by the simulator."""
    return RecordingId.parse(recording).archive == SIMULATED


def score_blocks(rows: Iterable[Mapping[str, Any]], about: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups scores that may be compared (same task, metric and split), real recordings before simulated ones.

    Args:
        rows: rows of the catalog's ``scores``.
        about: task -> `task_text`, where the task is declared.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["metric"], row["split"] or ""), []).append(row)
    blocks = [_block(held, about.get(task, UNTOLD)) for (task, _, _), held in sorted(groups.items())]
    blocks.sort(key=lambda b: (b["simulated"], b["task"], b["metric"], b["split"]))
    return [block | {"anchor": f"score-{i + 1}"} for i, block in enumerate(blocks)]


def _block(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    ours = _newest([r for r in rows if r["predictor"] == OURS])
    chance = _newest([r for r in rows if r["predictor"] == CHANCE])
    best = ours["baseline"] if ours else ""
    recordings = sorted({r for row in rows for r in row["recordings"] or ()})
    kinds = {id(row): _kind(row, best) for row in rows}
    first, order = rows[0], ("ours", "best", "baseline", "control", "untrained", "chance")
    metric = METRICS.get(first["metric"])
    better = -1.0 if metric is None or metric.higher else 1.0

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        value = better * row["value"] if figures.known(row["value"]) else float("inf")
        return order.index(kinds[id(row)]), value, row["predictor"], row["score_id"]

    listed = sorted(rows, key=place)
    digits = figures.decimals(r["value"] for r in rows)
    says = f"{metric.says}; {'more' if metric.higher else 'less'} is better" if metric else ""
    return {
        "task": first["task"], "metric": first["metric"], "metric_says": says, "split": first["split"] or "",
        "about": about,
        "verdict": (ours["verdict"] or "") if ours else "", "says": _sentence(ours, rows, best, digits),
        "simulated": bool(recordings) and all(map(is_simulated, recordings)), "recordings": recordings,
        "n_units": max(r["n_units"] or 0 for r in rows), "resampled": first["unit"] or "unit",
        "figure": _figure(listed, kinds, chance, digits), "rows": [_line(r, kinds[id(r)], digits) for r in listed],
        "digits": digits,
    }  # fmt: skip


def _newest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return max(rows, key=lambda r: (r.get("scored_at") or "", r["score_id"]), default=None)


def _kind(row: Mapping[str, Any], best: str) -> str:
    fixed = {OURS: "ours", UNTRAINED: "untrained", CHANCE: "chance"}
    if row["predictor"] in fixed:
        return fixed[row["predictor"]]
    return "best" if row["predictor"] == best else "control" if row["predictor"].startswith(CONTROL) else "baseline"


def _line(row: Mapping[str, Any], kind: str, digits: int) -> dict[str, Any]:
    return {
        "kind": kind, "predictor": row["predictor"], "id": row["score_id"], "value": row["value"],
        "ci": interval(row["ci_low"], row["ci_high"], digits), "n": row["n"], "units": row["n_units"],
        "delta": row["delta"], "delta_ci": interval(row["delta_low"], row["delta_high"], digits, sign=True),
        "verdict": row["verdict"] or "", "checkpoint": row["checkpoint"] or "", "seed": row["seed"],
        "details": _pretty(row["details"]),
    }  # fmt: skip


def _pretty(details: str | None) -> str:
    found = json.loads(details or "{}")
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) if found else ""


def interval(low: float | None, high: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """An interval for reading, an en dash where there is none."""
    if not (figures.known(low) and figures.known(high)):
        return "–"
    return f"{number(low, digits, sign=sign, fixed=True)} to {number(high, digits, sign=sign, fixed=True)}"


def _figure(
    rows: Sequence[Mapping[str, Any]], kinds: Mapping[int, str], chance: Mapping[str, Any] | None, digits: int
) -> Markup:
    axis = figures.axis_over([r[key] for r in rows for key in ("value", "ci_low", "ci_high")])
    lines = []
    for row in rows:
        value, span = number(row["value"], digits, fixed=True), interval(row["ci_low"], row["ci_high"], digits)
        tip = f"{row['predictor']}: {value}, 95% {span}; id {row['score_id']}"
        mark = figures.interval_row(
            axis, row["value"], row["ci_low"], row["ci_high"], kind=kinds[id(row)],
            chance=chance["value"] if chance else None, tip=tip,
        )  # fmt: skip
        lines.append(
            Markup(
                '<div class="line"><div class="who k-{kind}">{who}</div><div class="plot">{mark}</div>'
                '<div class="what k-{kind}">{value}</div></div>'
            ).format(kind=kinds[id(row)], who=row["predictor"], mark=mark, value=value)
        )
    label = f"{rows[0]['metric']}, with 95% interval"
    end = Markup('<div class="line"><div class="plot last">{}</div></div>').format(figures.axis_row(axis, label))
    return Markup('<div class="dots">{}{}</div>').format(Markup("").join(lines), end)


def _sentence(ours: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]], best: str, digits: int) -> str:
    """What the comparison says, a loss included."""
    if ours is None:
        return "Our model was not scored here."
    if not best or not figures.known(ours["delta"]):
        return f"Our model reaches {number(ours['value'], digits, fixed=True)}; it was not compared to a baseline here."
    rival = _newest([r for r in rows if r["predictor"] == best])
    role = "control" if best.startswith(CONTROL) else "baseline"
    against = best if best == CHANCE else f"{best}, the best tuned {role}"
    against += f" ({number(rival['value'], digits, fixed=True)})" if rival else ""
    change = f"difference {number(ours['delta'], digits, sign=True, fixed=True)}"
    if figures.known(ours["delta_low"]) and figures.known(ours["delta_high"]):
        change += f", 95% {interval(ours['delta_low'], ours['delta_high'], digits, sign=True)}"
    value = number(ours["value"], digits, fixed=True)
    return {
        "better": f"Our model ({value}) does better than {against}: {change}.",
        "worse": f"Our model ({value}) loses to {against}: {change}.",
        "equivalent": f"Our model ({value}) and {against} are equivalent within the stated margin: {change}.",
        "undecided": f"These data can't tell our model ({value}) from {against}: {change}.",
        "within one recording": f"Our model ({value}) beside {against}: {change}. Too few {ours['unit'] or 'unit'}s to "
        "generalise: this holds within one recording.",
    }.get(ours["verdict"] or "", f"Our model ({value}) beside {against}: {change}; not judged.")


def tally(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sentence that matters, and the counts behind it on real and on simulated recordings.

    Returns:
        ``sentences``, and ``ladders``: one for each kind of recording that was scored, with its name, number of
        tasks, bar, and blocks.
    """
    ladders = []
    for name, simulated in (("real recordings", False), ("simulated recordings", True)):
        held = [b for b in blocks if b["simulated"] is simulated]
        counts = Counter(b["verdict"] for b in held)
        shares = [(word.replace(" ", "-") or "none", text, counts[word]) for word, text in VERDICTS.items()]
        if held:
            bar = figures.share_bar(shares, f"Tasks on {name} by verdict")
            ladders.append({"name": name, "n": len(held), "bar": bar, "shares": shares, "blocks": held})
    said = [
        f"On {_tasks(one['n'])} of {one['name']}, our model against the best tuned baseline is {counted}."
        for one in ladders
        for counted in [_counted(one["blocks"])]
    ]
    return {"sentences": said or ["Nothing is scored in this lake yet."], "ladders": ladders}


def _tasks(n: int) -> str:
    return f"{n} task{'s' if n != 1 else ''}"


def _counted(blocks: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(b["verdict"] for b in blocks)
    # better and worse are said even where there are none: leaving one out would be a claim
    parts = [
        f"{text} on {counts[word] or 'none'}"
        if word != "within one recording"
        else f"not judged on {counts[word]} (one recording)"
        for word, text in VERDICTS.items()
        if counts[word] or word in ("better", "worse")
    ]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
