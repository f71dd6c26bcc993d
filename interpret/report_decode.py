"""What the page of one decoded recording shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from neurofmx.ingest.preview import preview_png
from neurofmx.interpret import figures, figures_decode
from neurofmx.interpret.report_scores import row_of, score_blocks, task_text
from neurofmx.provenance import code_version
from neurofmx.types import Events, Intervals, Stream

if TYPE_CHECKING:
    from neurofmx.evaluate.decode import DecodeResult

MOST_TRACES, MOST_BINS = 4, 600


def decode_view(result: DecodeResult) -> dict[str, Any]:
    """Everything that ``decode.html.j2`` shows of a result."""
    recording, task = result.recording, result.task
    (block,) = score_blocks(map(row_of, result.scores), {task.name: task_text(task)})
    says, drawn = _excerpt(result)
    files = recording.provenance.files
    return {
        "recording": str(recording.id),
        "block": block,
        "kept": result.lake is not None,
        "excerpt_says": says,
        "excerpts": drawn,
        "preview": figures.picture(preview_png(recording), f"Preview of every stream of {recording.id}"),
        "streams": [_stream(name, stream) for name, stream in sorted(recording.streams.items())],
        "files": files,
        "notes": recording.provenance.notes,
        "how": [
            ("told", f"{task.target_stream} from {', '.join(task.inputs)}"),
            ("bins", f"{figures.number(1000 * task.bin_s, 0)} ms"),
            ("held out", task_text(task)["split"]),
            ("read by", recording.provenance.reader),
            ("licence", recording.licence.spdx or "not stated"),
            ("citation", recording.provenance.citation or "not stated"),
            ("code", code_version()),
        ],
        "written_by": code_version(),
    }


def _stream(name: str, stream: Stream) -> dict[str, Any]:
    if isinstance(stream, Intervals):
        n, channels = len(stream.start_s), "–"
    else:
        n, channels = len(stream.times_s if isinstance(stream, Events) else stream.values), str(len(stream.channels))
    return {"name": name, "modality": stream.modality, "kind": type(stream).__name__, "n": n, "channels": channels}


def _excerpt(result: DecodeResult) -> tuple[str, list[Markup]]:
    if result.task.target.kind == "class":
        told = result.predicted.argmax(axis=1)
        right = int(np.sum(told == result.truth))
        figure = figures_decode.confusion(result.truth, told, result.names)
        return f"{right} of {len(told)} held-out trials were told right. Rows: truth; columns: what was told.", [figure]
    shown = slice(0, MOST_BINS)
    drawn = [
        figures_decode.traces(result.times_s[shown], result.truth[shown, d], result.predicted[shown, d], about=name)
        for d, name in enumerate(result.names[:MOST_TRACES])
    ]
    more = len(result.names) - len(drawn)
    says = "Grey: measured. Blue: predicted by a model that did not see this stretch."
    return f"{says} {more} more dimensions are not drawn." if more > 0 else says, drawn
