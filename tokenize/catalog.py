"""The table of tokenizers: one row a way to turn a modality into tokens, each a composition of small steps.

Another bin width is an override of a row (`dataclasses.replace(SPECS["spikes"], bin_s=0.02)`), not another row;
`SPIKE_BINS_S` lists the widths that the field uses.
"""

from __future__ import annotations

from dataclasses import replace

from neurofmx.errors import ConfigError
from neurofmx.types import Events, Intervals, Op, Recording, Samples, TokenSpec

# seconds by which a signal trails the activity that it shows, to be given to `spec`: the peak of the haemodynamic
# response to a short event (Glover 1999, NeuroImage 9:416), and GCaMP6s's rise to its peak in vivo (Chen et al.
# 2013, Nature 499:295)
HAEMODYNAMIC_LAG_S, CALCIUM_LAG_S = 5.0, 0.18

SPIKE_BINS_S = (0.01, 0.02, 0.05, 0.1, 0.25)

EEG_BANDS_HZ = ((2.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
FIELD_BANDS_HZ = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0), (70.0, 150.0))
PATCH = 8
_PATCH_FIELDS = tuple(f"s{i}" for i in range(PATCH))


def _bands(bands_hz: tuple[tuple[float, float], ...], window_s: float) -> tuple[Op, ...]:
    return (Op("band_power", (("bands_hz", bands_hz), ("window_s", window_s))),)


def _band_fields(bands_hz: tuple[tuple[float, float], ...]) -> tuple[str, ...]:
    return tuple(f"{lo:g}-{hi:g}Hz" for lo, hi in bands_hz)


def _mean(name: str, bin_s: float, modality: str = "") -> TokenSpec:
    """A slow signal as it is: the mean of each bin (bin_s 0: the signal's own rate)."""
    ops = (Op("bin_mean"),)
    return TokenSpec(name=name, version=1, modality=modality or name, ops=ops, bin_s=bin_s, fields=("value",))


_ROWS = (
    TokenSpec(
        name="spikes",
        version=1,
        modality="spikes",
        ops=(Op("bin_counts"), Op("sqrt")),
        bin_s=0.05,
        fields=("sqrt_count",),
    ),
    TokenSpec(
        name="emg_features",
        version=1,
        modality="emg",
        ops=(Op("envelope"),),
        bin_s=0.2,
        fields=("log_abs", "log_diff", "zero_crossings"),
    ),
    TokenSpec(
        name="eeg_bands",
        version=1,
        modality="eeg",
        ops=_bands(EEG_BANDS_HZ, 0.5),
        bin_s=0.1,
        fields=_band_fields(EEG_BANDS_HZ),
    ),
    TokenSpec(
        name="eeg_raw",
        version=1,
        modality="eeg",
        ops=(Op("patch", (("samples", PATCH),)),),
        bin_s=0.05,
        fields=_PATCH_FIELDS,
    ),
    TokenSpec(
        name="lfp_bands",
        version=1,
        modality="lfp",
        ops=_bands(FIELD_BANDS_HZ, 0.25),
        bin_s=0.05,
        fields=_band_fields(FIELD_BANDS_HZ),
    ),
    TokenSpec(
        name="ecog_bands",
        version=1,
        modality="ecog",
        ops=_bands(FIELD_BANDS_HZ, 0.25),
        bin_s=0.1,
        fields=_band_fields(FIELD_BANDS_HZ),
    ),
    TokenSpec(
        name="sound",
        version=1,
        modality="sound",
        ops=(Op("log_amplitude"), Op("bin_mean")),
        bin_s=0.003,
        fields=("log_amplitude",),
    ),
    TokenSpec(
        name="gaze_speed",
        version=1,
        modality="gaze",
        ops=(Op("speed"), Op("bin_mean")),
        bin_s=0.01,
        fields=("speed",),
    ),
    _mean("calcium", 0.1),
    _mean("fmri", 0.0),
    _mean("photometry", 0.1),
    _mean("fnirs", 0.5),
    _mean("position", 0.05),
    _mean("force", 0.05),
    _mean("behaviour", 0.05),
)

SPECS: dict[str, TokenSpec] = {row.name: row for row in _ROWS}


def spec(name: str, *, bin_s: float | None = None, lag_s: float = 0.0) -> TokenSpec:
    """One row by name, with another bin width or a lag where one is given.

    Args:
        name: row of the table.
        bin_s: bin width in seconds; the row's own if None.
        lag_s: a token holds what was measured this much after its bin, as `HAEMODYNAMIC_LAG_S` and
            `CALCIUM_LAG_S` say; the spec is then another one, and not causal.

    Raises:
        ConfigError: no row has that name.
    """
    if name not in SPECS:
        raise ConfigError(f"token spec {name!r}", expected=f"one of {sorted(SPECS)}")
    row = replace(SPECS[name], bin_s=bin_s) if bin_s is not None else SPECS[name]
    if not lag_s:
        return row
    return replace(row, ops=(Op("lag", (("lag_s", float(lag_s)),)), *row.ops), causal=row.causal and lag_s < 0)


def specs_for(recording: Recording) -> list[TokenSpec]:
    """The rows that fit a recording: those whose modality it has, at a rate that the row can use."""
    return [row for row in _ROWS if any(_fits(row, stream) for stream in recording.streams.values())]


def _fits(row: TokenSpec, stream: Events | Samples | Intervals) -> bool:
    if stream.modality != row.modality or isinstance(stream, Intervals):
        return False
    if isinstance(stream, Events):
        return row.ops[0].name == "bin_counts"
    rate = _rate(stream)
    for op in row.ops:
        if op.name == "band_power" and rate <= 2 * max(hi for _, hi in op.kwargs["bands_hz"]):
            return False
        if op.name == "patch" and rate * row.bin_s < op.kwargs["samples"] * (1 - 1e-3):
            return False
    return row.ops[0].name != "bin_counts" and (row.bin_s == 0 or rate * row.bin_s >= 1 - 1e-3)


def _rate(stream: Samples) -> float:
    if stream.rate_hz is not None:
        return stream.rate_hz
    times = stream.times()
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
