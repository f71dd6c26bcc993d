"""Contracts on the catalog's tables, as Great Expectations suites: rules across columns and tables, and their page.

Tables only, never arrays: what is wrong with a recording's samples is `ingest.checks`' to find.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurofmx import catalog
from neurofmx.lake import Lake
from neurofmx.types import Check


@dataclass(frozen=True)
class Rule:
    """One expectation on one table.

    Args:
        name: short name, unique in the table; the check is called ``table.name``.
        says: the rule in words.
        kind: class in `great_expectations.expectations`.
        on: its arguments.
    """

    name: str
    says: str
    kind: str
    on: dict[str, Any]


def _present(column: str) -> Rule:
    return Rule(f"{column}_present", f"{column} is stated", "ExpectColumnValueLengthsToBeBetween",
                {"column": column, "min_value": 1})  # fmt: skip


def _order(name: str, says: str, high: str, low: str, *, equal: bool) -> Rule:
    return Rule(name, says, "ExpectColumnPairValuesAToBeGreaterThanB",
                {"column_A": high, "column_B": low, "or_equal": equal,
                 "ignore_row_if": "either_value_is_missing"})  # fmt: skip


def _range(name: str, says: str, column: str, low: float | None, high: float | None) -> Rule:
    return Rule(name, says, "ExpectColumnValuesToBeBetween", {"column": column, "min_value": low, "max_value": high})


# table -> the frame that its rules see: scalar columns, and counts drawn from other tables;
# a null is no value to most expectations, so what must be stated is made a value that fails
FRAMES = {
    "recordings": """
        select recording_id, subject_id, licence, reader, digest, start_s, stop_s, duration_s, clock_error_s,
            n_streams, len(modalities) as n_modalities, len(raw_sha256) as n_raw,
            len(raw_sha256) - len(list_filter(raw_sha256, lambda x: regexp_full_match(x, '[0-9a-f]{64}'))) as bad_raw,
            len(source_url) as n_urls, abs(duration_s - (stop_s - start_s)) as duration_gap_s,
            (select count(*) from streams s where s.recording_id = r.recording_id) as n_stream_rows,
            (select min(first_s) from streams s where s.recording_id = r.recording_id) + 1e-6 as first_s,
            (select max(last_s) from streams s where s.recording_id = r.recording_id) - 1e-6 as last_s,
            (select count(*) from checks c where c.recording_id = r.recording_id and c.stage = 'ingest'
                and c.severity = 'block' and not c.passed) as n_blocked
        from (select * replace (coalesce(subject_id, '') as subject_id, coalesce(licence, '') as licence,
            coalesce(reader, '') as reader, coalesce(digest, '') as digest,
            coalesce(clock_error_s, -1) as clock_error_s) from recordings) r order by recording_id""",
    "scores": """
        select score_id, task, predictor, metric, verdict, value, ci_low, ci_high, delta, delta_low, delta_high, n,
            n_units, len(recordings) as n_recordings,
            (select count(*) from (select unnest(s.recordings) as rid)
                where rid not in (select recording_id from recordings)) as n_unknown_recordings,
            (select count(*) from scores c where c.task = s.task and c.split = s.split and c.metric = s.metric
                and c.predictor = 'chance') as n_chance,
            cast(predictor = 'neurofmx' and coalesce(checkpoint, '') = '' as integer) as no_checkpoint,
            cast(n_units < 5 and coalesce(verdict, '') not in ('', 'within one recording') as integer) as overclaims
        from (select * replace (coalesce(task, '') as task, coalesce(predictor, '') as predictor,
            coalesce(metric, '') as metric) from scores) s order by score_id""",
}
RULES = {
    "recordings": (
        Rule("id_unique", "one row a recording", "ExpectColumnValuesToBeUnique", {"column": "recording_id"}),
        Rule("id_form", "archive:dataset@version/name", "ExpectColumnValuesToMatchRegex",
             {"column": "recording_id", "regex": r"^[^:@/]+:[^:@/]+@[^:@/]+/[^:@/]+$"}),
        Rule("digest_form", "digest is a sha256", "ExpectColumnValuesToMatchRegex",
             {"column": "digest", "regex": r"^[0-9a-f]{64}$"}),
        *map(_present, ("subject_id", "licence", "reader")),
        _order("stop_after_start", "a recording ends after it starts", "stop_s", "start_s", equal=False),
        _range("duration_agrees", "duration is stop less start", "duration_gap_s", None, 1e-6),
        _range("clock_error_stated", "the clock's error is known and not negative", "clock_error_s", 0, None),
        _range("has_streams", "at least one stream", "n_streams", 1, None),
        _range("has_modalities", "at least one modality", "n_modalities", 1, None),
        _range("has_raw_files", "traced to at least one raw file", "n_raw", 1, None),
        _range("raw_digests", "every raw file by its sha256", "bad_raw", 0, 0),
        _order("raw_urls", "an address for every raw file", "n_urls", "n_raw", equal=True),
        Rule("stream_rows", "as many rows in streams as streams", "ExpectColumnPairValuesToBeEqual",
             {"column_A": "n_streams", "column_B": "n_stream_rows"}),
        _order("streams_after_start", "no stream begins before the recording", "first_s", "start_s", equal=True),
        _order("streams_before_stop", "no stream ends after the recording", "stop_s", "last_s", equal=True),
        _range("no_blocked", "nothing that a blocking check refused", "n_blocked", 0, 0),
    ),
    "scores": (
        Rule("id_unique", "one row a score", "ExpectColumnValuesToBeUnique", {"column": "score_id"}),
        *map(_present, ("task", "predictor", "metric")),
        Rule("value_known", "a score has a value", "ExpectColumnValuesToNotBeNull", {"column": "value"}),
        _order("value_above_ci_low", "ci_low <= value", "value", "ci_low", equal=True),
        _order("value_below_ci_high", "value <= ci_high", "ci_high", "value", equal=True),
        _order("delta_above_low", "delta_low <= delta", "delta", "delta_low", equal=True),
        _order("delta_below_high", "delta <= delta_high", "delta_high", "delta", equal=True),
        _order("units_within_n", "no more resampling units than scored bins or trials", "n", "n_units", equal=True),
        _range("has_units", "at least one resampling unit", "n_units", 1, None),
        _range("has_recordings", "at least one recording", "n_recordings", 1, None),
        _range("recordings_known", "every scored recording is in the catalog", "n_unknown_recordings", 0, 0),
        _range("beside_chance", "chance is scored on the same task and split", "n_chance", 1, None),
        _range("checkpoint_named", "a trained model's score names its checkpoint", "no_checkpoint", 0, 0),
        _range("no_overclaim", "fewer than five units: within one recording", "overclaims", 0, 0),
        Rule("verdict_known", "verdict is one of the five", "ExpectColumnValuesToBeInSet",
             {"column": "verdict", "value_set": ["", "better", "worse", "equivalent", "undecided",
                                                 "within one recording"]}),
    ),
}  # fmt: skip
_KEYS = {"recordings": "recording_id", "scores": "score_id"}


def validate_tables(lake: Lake, out: Path | None = None) -> tuple[Check, ...]:
    """Holds every rule against the catalog as it is now.

    Args:
        lake: its catalog is read, never written.
        out: folder for the Data Docs, a static site that needs no network; None writes none.

    Returns:
        One blocking check a rule and one warning a table that has no rows yet, named ``table.rule``, with the
        rows that break it as evidence.
    """
    frames = {table: catalog.query(lake, sql).to_pandas() for table, sql in FRAMES.items()}
    found: list[Check] = []
    context = _context(out)
    for table, frame in frames.items():
        found.append(Check(name=f"{table}.rows", passed=len(frame) > 0, severity="warn", evidence=f"{len(frame)} rows"))
        if len(frame):
            found += _held(context, table, frame)
    if out is not None:
        context.build_data_docs()
        _self_contained(out, found)
    return tuple(found)


def _context(out: Path | None) -> Any:
    """A Great Expectations context that keeps nothing and calls nobody."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import: it would report each run to its maker
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
        site = {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(out.resolve())},
        }
        context.add_data_docs_site(site_name="contracts", site_config=site)  # type: ignore[arg-type]
    return context


def _held(context: Any, table: str, frame: Any) -> list[Check]:
    import great_expectations as gx
    from great_expectations import expectations

    suite = context.suites.add(gx.ExpectationSuite(table))
    for rule in RULES[table]:
        suite.add_expectation(
            getattr(expectations, rule.kind)(**rule.on, description=rule.says, meta={"rule": rule.name})
        )
    batch = (
        context.data_sources.add_pandas(f"catalog-{table}")
        .add_dataframe_asset(table)
        .add_batch_definition_whole_dataframe("now")
    )
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=table, data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=table,
            validation_definitions=[definition],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [_KEYS[table]]},
        )
    )
    (result,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
    by_name = {rule.name: rule for rule in RULES[table]}
    return [_check(table, by_name[one.expectation_config.meta["rule"]], one, len(frame)) for one in result.results]


def _check(table: str, rule: Rule, result: Any, n_rows: int) -> Check:
    if result.success:
        evidence = f"{rule.says}: {n_rows} rows"
    else:
        broken = result.result.get("unexpected_index_list") or []
        shown = "; ".join(", ".join(f"{k} {_short(v)}" for k, v in sorted(row.items())) for row in broken[:5])
        evidence = f"{len(broken)} of {n_rows} rows break: {rule.says}. {shown or _raised(result)}"
    return Check(name=f"{table}.{rule.name}", passed=bool(result.success), severity="block", evidence=evidence)


def _raised(result: Any) -> str:
    return str((result.exception_info or {}).get("exception_message") or "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_STYLE = """<style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:auto;padding:1rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{border:1px solid #8885;padding:.3rem .6rem;
text-align:left;vertical-align:top;overflow-wrap:anywhere}
.modal,.d-none,nav img,footer,.footer,button,form{display:none}ul{padding-left:1.2rem}
.badge{border:1px solid #8888;border-radius:.5rem;padding:0 .4rem}.text-success{color:#2a8a3e}.text-danger{color:#c33}
.fa-check-circle::before{content:"\\2713"}.fa-times::before{content:"\\2717"}
a{color:#2b6cb0}.breadcrumb{display:flex;gap:1rem;list-style:none;padding:0}
@media(prefers-color-scheme:dark){a{color:#7ab8ff}.text-success{color:#5ad17a}.text-danger{color:#ff7a7a}}
</style>"""


def _self_contained(site: Path, found: list[Check]) -> None:
    """Takes what other hosts would serve out of the pages, and writes an index that needs no script."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<script\b.*?</script>|<footer\b.*?</footer>", "", text, flags=re.DOTALL)
        text = re.sub(r"<(?:link|img)\b[^>]*https?://[^>]*>|url\('https?://[^']*'\)", "", text)
        page.write_text(text.replace("</head>", f"{_STYLE}</head>", 1), encoding="utf-8")
    pages = sorted((site / "validations").rglob("*.html"))
    links = "".join(
        f'<li><a href="{p.relative_to(site).as_posix()}">{p.relative_to(site).parts[1]}</a></li>' for p in pages
    )
    rows = "".join(
        f"<tr><td class='text-{'success' if c.passed else 'danger'}'>{'holds' if c.passed else 'broken'}</td>"
        f"<td>{html.escape(c.name)}</td><td>{html.escape(c.evidence)}</td></tr>"
        for c in found
    )
    (site / "index.html").write_text(
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Catalog contracts</title>"
        f"<meta name='viewport' content='width=device-width,initial-scale=1'>{_STYLE}</head><body>"
        f"<h1>Catalog contracts</h1><p>{sum(c.passed for c in found)} of {len(found)} hold. In full:</p>"
        f"<ul>{links}</ul><table><tr><th>verdict</th><th>rule</th><th>evidence</th></tr>{rows}</table></body></html>",
        encoding="utf-8",
    )
