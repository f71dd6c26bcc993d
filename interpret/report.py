"""The report: one page in one file, that asks no network for anything and reads well on paper, phone and desk."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from neurofmx.interpret.figures import cut, known, number
from neurofmx.interpret.report_data import report_view
from neurofmx.interpret.report_decode import decode_view
from neurofmx.lake import Lake

if TYPE_CHECKING:
    from neurofmx.evaluate.decode import DecodeResult

TEMPLATES = Path(__file__).resolve().parent / "templates"
MOST_SHOWN = 96  # characters: a data address holds a whole file


def write_report(lake: Lake, out: Path) -> Path:
    """Writes the page of a lake: data, refusals, scores, transfer, findings, provenance.

    Args:
        lake: its catalog and one recording a modality are read, nothing in it is changed.
        out: the HTML file; replaced whole.

    Returns:
        The absolute path of the page; its bytes depend on what the lake holds and on the code alone.
    """
    return _write("report.html.j2", out, report_view(lake))


def decode_page(result: DecodeResult, out: Path) -> Path:
    """Writes the page of one decoded recording: what the scores say, the scores, an excerpt, the recording.

    Args:
        result: what `neurofmx.evaluate.decode.decode` returned.
        out: the HTML file; replaced whole.

    Returns:
        The absolute path of the page.
    """
    return _write("decode.html.j2", out, decode_view(result))


def _write(template: str, out: Path, view: dict[str, Any]) -> Path:
    css, js = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    text = _environment().get_template(template).render(css=Markup(css), js=Markup(js), **view)
    target = Path(out).expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)
    return target


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "raw": _raw,
        "slug": _slug,
        "cut": _cut,
        "address": _address,
        "when": _when,
    }
    return environment


def _raw(value: float | None) -> str:
    """A number to sort by."""
    return repr(value) if known(value) else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z]+", "-", text.lower())


def _address(url: str) -> str:
    """An address for reading; of a local file the name alone, since a page is given away and folders name people."""
    return unquote(url.rstrip("/").rsplit("/", 1)[-1]) if url.startswith("file:") else _cut(url)


def _when(text: str | None) -> str:
    """A stored time for reading."""
    return (text or "–").replace("T", " ").replace("+00:00", " UTC")


def _cut(text: str) -> str:
    return cut(text, MOST_SHOWN)
