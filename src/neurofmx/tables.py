"""The catalog's tables as data: one sentence a table; type, unit and one clause of meaning a column.

The data dictionary, the Arrow schemas and the checks of what is written all come from these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurofmx.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, unit (empty for none) and what a value says."""

    name: str
    type: str
    unit: str
    about: str


@dataclass(frozen=True)
class Table:
    """One table: what a row is, what its parts are keyed by, and its columns in order."""

    about: str
    key: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]


def _table(about: str, key: str, *columns: tuple[str, str, str, str]) -> Table:
    return Table(about, key, tuple(Column(*column) for column in columns))


_RECORDING = ("recording_id", "string", "", "text form of the recording's id, archive:dataset@version/name")
_STREAM = ("stream", "string", "", "name of the stream within the recording")
_CODE = ("code_version", "string", "", "version and commit of the code that made the row")
_SNAPSHOT = ("snapshot", "string", "", "digest of the lake snapshot that was read")

# fmt: off
TABLES: dict[str, Table] = {
    "datasets": _table(
        "A dataset of an archive as it was last listed.", "the source's text",
        ("dataset_id", "string", "", "text form of the source, archive:dataset@version"),
        ("archive", "string", "", "which archive, such as dandi or physionet"),
        ("dataset", "string", "", "the archive's own name of the dataset"),
        ("version", "string", "", "the archive's version"),
        ("address", "string", "", "where it was listed"),
        ("licence", "string", "", "SPDX identifier of the terms, empty where none are stated"),
        ("citation", "string", "", "how to cite the data"),
        ("n_listed", "int64", "", "recordings that the archive lists"),
        ("listed_at", "string", "UTC", "when it was listed, ISO 8601"),
    ),
    "subjects": _table(
        "A person or animal that was recorded.", "subject_key",
        ("subject_key", "string", "", "archive:dataset/subject, unique in the lake"),
        ("archive", "string", "", "which archive"),
        ("dataset", "string", "", "the archive's own name of the dataset"),
        ("subject_id", "string", "", "unique inside the dataset"),
        ("species", "string", "", "Latin name as stated, empty where unknown"),
        ("sex", "string", "", "as stated, empty where unknown"),
        ("age", "string", "", "as stated, usually an ISO 8601 duration"),
    ),
    "recordings": _table(
        "A recording's current version: the smallest thing with one clock.", "recording_id",
        _RECORDING,
        ("archive", "string", "", "which archive"),
        ("dataset", "string", "", "the archive's own name of the dataset"),
        ("version", "string", "", "the archive's version"),
        ("name", "string", "", "name of the recording inside the dataset"),
        ("subject_id", "string", "", "who was recorded, unique inside the dataset"),
        ("species", "string", "", "Latin name as stated, empty where unknown"),
        ("session", "string", "", "the archive's own session label"),
        ("task", "string", "", "what the subject did, empty where unknown"),
        ("start_s", "double", "s", "begin of the recording on the session clock"),
        ("stop_s", "double", "s", "end of the recording on the session clock"),
        ("duration_s", "double", "s", "stop_s less start_s, gaps included"),
        ("modalities", "list<string>", "", "modalities of its streams, sorted"),
        ("n_streams", "int64", "", "number of streams"),
        ("n_channels", "int64", "", "channels of all streams together"),
        ("licence", "string", "", "SPDX identifier of the terms"),
        ("redistribute", "bool", "", "whether bytes may leave this lake"),
        ("citation", "string", "", "how to cite the data"),
        ("reader", "string", "", "name and version of the code that read the files"),
        ("notes", "list<string>", "", "what the reader had to decide"),
        ("raw_sha256", "list<string>", "", "digests of the raw files"),
        ("source_url", "list<string>", "", "addresses of the raw files, in the same order"),
        ("clock_error_s", "double", "s", "largest stated alignment error of any stream"),
        ("digest", "string", "", "logical digest of decoded values and metadata: the data version"),
        ("path", "string", "", "folder of the group, relative to the lake"),
        ("bytes", "int64", "B", "size of the decoded arrays"),
        _CODE,
        ("ingested_at", "string", "UTC", "when it was published, ISO 8601"),
    ),
    "streams": _table(
        "A stream of a recording.", "recording_id",
        _RECORDING, _STREAM,
        ("kind", "string", "", "events, samples or intervals"),
        ("modality", "string", "", "spikes, lfp, eeg, emg, position, trials, ..."),
        ("unit", "string", "", "unit of the values, s for times"),
        ("rate_hz", "double", "Hz", "sampling rate, null where times are stated one by one"),
        ("n", "int64", "", "number of events, samples or intervals"),
        ("n_channels", "int64", "", "number of channels, 0 for intervals"),
        ("first_s", "double", "s", "first time on the session clock"),
        ("last_s", "double", "s", "last time on the session clock"),
        ("valid_s", "double", "s", "length of the spans in which data exist"),
        ("clock_error_s", "double", "s", "stated error of its alignment to the session clock"),
        ("drift_ppm", "double", "ppm", "largest drift of its device clock over the pieces, null without one"),
        ("digest", "string", "", "logical digest of the stream"),
    ),
    "channels": _table(
        "A channel of a stream: an electrode, unit, region, fibre or key point.", "recording_id",
        _RECORDING, _STREAM,
        ("row", "int64", "", "position along the channel axis, from 0"),
        ("channel", "string", "", "the channel's own name"),
        ("region", "string", "", "anatomical region, empty where unknown"),
        ("x_um", "double", "um", "first coordinate, null where unknown"),
        ("y_um", "double", "um", "second coordinate, null where unknown"),
        ("z_um", "double", "um", "third coordinate, null where unknown"),
    ),
    "intervals": _table(
        "A trial, epoch, stimulus or sleep stage of a recording.", "recording_id",
        _RECORDING, _STREAM,
        ("row", "int64", "", "position within the stream, from 0"),
        ("start_s", "double", "s", "begin on the session clock"),
        ("stop_s", "double", "s", "end on the session clock"),
        ("columns", "string", "", "the further columns as a JSON object"),
    ),
    "arrays": _table(
        "A stored array of a group: what the packed index opens without reading the group's metadata.",
        "the group's key",
        _RECORDING,
        ("kind", "string", "", "recording, or tokens:<spec digest>:<stream>"),
        _STREAM,
        ("array", "string", "", "path of the array within the group, such as lfp/values"),
        ("group", "string", "", "folder of the group, relative to the lake"),
        ("dtype", "string", "", "numpy type of an element"),
        ("shape", "list<int64>", "", "length of each axis, time first"),
        ("chunk_rows", "int64", "", "rows of a chunk"),
        ("shard_rows", "int64", "", "rows of a shard file"),
        ("codec", "string", "", "none or lz4"),
        ("rate_hz", "double", "Hz", "sampling rate of the rows, null where they have none"),
        ("t0_s", "double", "s", "session time of row 0 where there is a rate"),
        ("n_bytes", "int64", "B", "size of the decoded array"),
        ("files", "list<string>", "", "shard files, relative to the group"),
        ("file_sha256", "list<string>", "", "digests of the shard files, in the same order"),
    ),
    "tokens": _table(
        "Stored tokens of one recording under one spec.", "recording_id|spec|spec_digest|stream",
        _RECORDING,
        ("spec", "string", "", "name of the token spec"),
        ("spec_digest", "string", "", "identity of the spec"),
        _STREAM,
        ("modality", "string", "", "modality that the spec reads"),
        ("bin_s", "double", "s", "step of the grid"),
        ("n_bins", "int64", "", "number of bins"),
        ("n_channels", "int64", "", "number of channels"),
        ("n_fields", "int64", "", "values a token holds"),
        ("digest", "string", "", "logical digest of the tokens"),
        ("path", "string", "", "folder of the group, relative to the lake"),
    ),
    "checks": _table(
        "A judgement of one recording by one stage.", "recording_id, with |refused or |task|name behind it",
        _RECORDING,
        ("stage", "string", "", "who judged: ingest, quarantine or task"),
        ("check_name", "string", "", "what was checked"),
        ("passed", "bool", "", "the verdict"),
        ("severity", "string", "", "block stops the recording, warn is shown"),
        ("evidence", "string", "", "the value that was seen and what was expected"),
        ("checked_at", "string", "UTC", "when it was judged, ISO 8601"),
    ),
    "quarantine": _table(
        "A recording that a blocking check refused.", "recording_id",
        _RECORDING,
        ("reasons", "list<string>", "", "each blocking check with its evidence"),
        ("source_url", "list<string>", "", "addresses of the raw files"),
        ("raw_sha256", "list<string>", "", "digests of the raw files"),
        ("released", "bool", "", "whether a person let it in all the same"),
        ("quarantined_at", "string", "UTC", "when it was refused, ISO 8601"),
    ),
    "splits": _table(
        "A block of time of a recording with its fold in one split; rows are only ever added.",
        "task|split_id|recording_id",
        ("split_id", "string", "", "digest of the split's rules and salt"),
        ("task", "string", "", "task that the split belongs to"),
        _RECORDING,
        ("subject_id", "string", "", "who was recorded"),
        ("group_name", "string", "", "what is kept on one side: a subject, or a session"),
        ("unit", "string", "", "the resampling unit: block, session or subject by name"),
        ("fold", "int64", "", "fold number; a negative one is a guard gap that nobody reads"),
        ("start_s", "double", "s", "begin of the block on the session clock"),
        ("stop_s", "double", "s", "end of the block on the session clock"),
    ),
    "runs": _table(
        "A finished training run of one fold.", "run_id",
        ("run_id", "string", "", "digest of everything that determines the run"),
        ("recipe", "string", "", "name of the recipe"),
        ("recipe_digest", "string", "", "digest of the whole recipe"),
        ("recipe_json", "string", "", "the whole recipe as JSON"),
        ("fold", "int64", "", "fold that was held out"),
        ("seed", "int64", "", "random seed"),
        _SNAPSHOT,
        ("tasks", "list<string>", "", "tasks that were trained"),
        ("recordings", "list<string>", "", "recordings whose windows were read"),
        ("path", "string", "", "folder of the checkpoint, relative to the lake"),
        ("steps", "int64", "", "optimiser steps"),
        ("parameters", "int64", "", "trained parameters"),
        ("best_valid", "double", "", "lowest validation loss, relative to the linear path alone"),
        ("seconds", "double", "s", "wall time"),
        ("history", "string", "", "losses by step as JSON"),
        _CODE,
        ("started_at", "string", "UTC", "when the row was written, ISO 8601"),
    ),
    "scores": _table(
        "A score of one predictor on one task, with its interval and what it is compared to.", "task",
        ("score_id", "string", "", "short digest of everything that determines the number"),
        ("task", "string", "", "what was predicted"),
        ("predictor", "string", "", "chance, a baseline's name, neurofmx or neurofmx-untrained"),
        ("metric", "string", "", "name of the metric"),
        ("value", "double", "metric", "the score, pooled as the metric says"),
        ("ci_low", "double", "metric", "lower end of the 95% bootstrap interval"),
        ("ci_high", "double", "metric", "upper end of the 95% bootstrap interval"),
        ("n", "int64", "", "scored bins or trials"),
        ("n_units", "int64", "", "resampling units"),
        ("unit", "string", "", "what was resampled: block, session or subject"),
        ("split", "string", "", "digest of the split"),
        ("recordings", "list<string>", "", "recordings that were scored"),
        ("checkpoint", "string", "", "run ids of the checkpoints, empty for baselines"),
        _SNAPSHOT,
        ("seed", "int64", "", "random seed"),
        ("baseline", "string", "", "predictor that this row is compared to, empty for none"),
        ("delta", "double", "metric", "paired difference to that baseline"),
        ("delta_low", "double", "metric", "lower end of the difference's interval"),
        ("delta_high", "double", "metric", "upper end of the difference's interval"),
        ("verdict", "string", "", "better, worse, equivalent, undecided or within one recording"),
        ("recipe", "string", "", "digest of the recipe, or of the baseline's grid and choice"),
        ("details", "string", "", "chosen settings and the printed grid as JSON"),
        _CODE,
        ("scored_at", "string", "UTC", "when it was scored, ISO 8601"),
    ),
    "transfer": _table(
        "A cell of a transfer matrix: trained on a source, scored on a target.", "matrix|source|target",
        ("cell_id", "string", "", "digest of everything that determines the cell"),
        ("matrix", "string", "", "name of the matrix"),
        ("source", "string", "", "what it was trained on"),
        ("target", "string", "", "what it was scored on"),
        ("metric", "string", "", "name of the metric"),
        ("value", "double", "metric", "score after transfer"),
        ("scratch", "double", "metric", "score of the same model trained on the target alone"),
        ("random_init", "double", "metric", "score of the adapted model without pretraining"),
        ("gain", "double", "metric", "value less scratch"),
        ("gain_low", "double", "metric", "lower end of the gain's interval"),
        ("gain_high", "double", "metric", "upper end of the gain's interval"),
        ("n", "int64", "", "scored bins or trials"),
        ("n_units", "int64", "", "resampling units"),
        ("simulated", "bool", "", "whether either side is simulated"),
        ("differs", "string", "", "in what source and target differ"),
        ("seed", "int64", "", "first random seed"),
        _SNAPSHOT,
        ("checkpoint", "string", "", "run id of the first checkpoint"),
        ("details", "string", "", "plan, seeds, controls and caveats as JSON"),
    ),
    "findings": _table(
        "The result of one analysis with its chance level.", "finding_id",
        ("finding_id", "string", "", "digest of everything that determines the finding"),
        ("task", "string", "", "task of the model that was analysed"),
        ("analysis", "string", "", "row of the table of analyses"),
        ("family", "string", "", "group of analyses: probes, similarity, ablation, ..."),
        ("subject", "string", "", "what it is about: a block, a channel group, a pair of layers"),
        ("headline", "string", "", "name of the headline statistic"),
        ("value", "double", "statistic", "the headline statistic"),
        ("null", "list<double>", "statistic", "the same statistic under the declared null"),
        ("p", "double", "", "one-sided permutation p value"),
        ("q", "double", "", "p adjusted over the confirmatory findings, NaN where exploratory"),
        ("ci_low", "double", "statistic", "lower end of the 95% interval"),
        ("ci_high", "double", "statistic", "upper end of the 95% interval"),
        ("status", "string", "", "significant, not significant, inconclusive, invalid or skipped"),
        ("reason", "string", "", "why invalid, inconclusive or skipped"),
        ("scalars", "string", "", "further numbers as JSON"),
        ("arrays", "string", "", "what the figure is drawn from, as JSON"),
        ("caveats", "list<string>", "", "what a reader must know"),
        ("provenance", "string", "", "digests of inputs, parameters and seed as JSON"),
        ("found_at", "string", "UTC", "when it was found, ISO 8601"),
    ),
    "lineage": _table(
        "An edge from a thing to one that it was made from.", "child, or scores|task",
        ("child", "string", "", "id of what was made"),
        ("child_kind", "string", "", "recording, run, score, transfer, ..."),
        ("parent", "string", "", "id or digest of what it was made from"),
        ("parent_kind", "string", "", "raw, recording, run, task, ..."),
        ("detail", "string", "", "what the edge says more, as JSON"),
    ),
    "snapshots": _table(
        "A frozen state of the lake.", "the snapshot's digest, or name|name",
        ("snapshot", "string", "", "digest of the manifest"),
        ("name", "string", "", "name that was given to it, empty for none"),
        ("taken_at", "string", "UTC", "when it was taken, ISO 8601"),
        ("n_recordings", "int64", "", "recordings that it names"),
        ("n_tokens", "int64", "", "token groups that it names"),
        ("bytes", "int64", "B", "size of the decoded arrays of its recordings"),
        ("path", "string", "", "the manifest, relative to the lake"),
    ),
}
# fmt: on


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table.

    Raises:
        ConfigError: there is no such table.
    """
    import pyarrow as pa

    if table not in TABLES:
        raise ConfigError("catalog table", got=table, expected=f"one of {', '.join(TABLES)}")
    types = {
        "string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()), "list<int64>": pa.list_(pa.int64()),
        "list<double>": pa.list_(pa.float64()),
    }  # fmt: skip
    return pa.schema([(column.name, types[column.type]) for column in TABLES[table].columns])
