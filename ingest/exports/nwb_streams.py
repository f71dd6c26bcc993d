"""Where each stream of a recording goes in an NWB file, and as what type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from neurofmx.frames import Frames
from neurofmx.scaled import Scaled
from neurofmx.types import Events, Intervals, Samples, Stream, sanitise

IN_VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}
_ELECTRODES = ("lfp", "eeg", "ecog", "ieeg", "seeg", "emg", "ecephys", "eog")
# modality -> the interface that holds its spatial series
_SPATIAL = {"position": "Position", "gaze": "EyeTracking", "head_direction": "CompassDirection"}
_RESERVED = ("trials", "epochs", "invalid_times")
_BUFFER_GB = 0.064


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A stream that is in the file.

    Args:
        name: the stream's name.
        stream: the stream.
        key: the name of the object that holds it.
        series: that object, None for units, which share a table.
        scale: (C,) factors and (C,) offsets of stored integers, NaN where values are stored as they are.
    """

    name: str
    stream: Stream
    key: str
    series: Any
    scale: tuple[np.ndarray, np.ndarray]


def place(nwb: Any, name: str, stream: Stream, stem: str) -> Placed:
    """Puts one stream into an NWB file that is being made; spikes are only counted in, their table is made later.

    Args:
        nwb: the file.
        name: the stream's name.
        stream: the stream.
        stem: name of the file without its suffix, with which videos beside it begin.
    """
    key = sanitise(name)
    if isinstance(stream, Intervals):
        none = np.empty(0)
        return Placed(name=name, stream=stream, key=key, series=_table(nwb, key, stream), scale=(none, none))
    plain = np.full(len(stream.channels), np.nan)
    if isinstance(stream, Events):
        series = None if stream.modality == "spikes" else _events(nwb, key, stream)
        return Placed(name=name, stream=stream, key=key, series=series, scale=(plain, plain))
    series, scale = _samples(nwb, key, stream, stem)
    return Placed(name=name, stream=stream, key=key, series=series, scale=scale or (plain, plain))


def _module(nwb: Any, name: str) -> Any:
    return nwb.processing[name] if name in nwb.processing else nwb.create_processing_module(name, f"{name} data")


def _holder(nwb: Any, module: str, kind: Any) -> Any:
    place = _module(nwb, module)
    if kind.__name__ not in place.data_interfaces:
        place.add(kind())
    return place[kind.__name__]


def _events(nwb: Any, key: str, stream: Events) -> Any:
    from pynwb import TimeSeries
    from pynwb.behavior import BehavioralEvents

    labels = ", ".join(f"{i} {label}" for i, label in enumerate(stream.channels.ids[:64]))
    series = TimeSeries(
        name=key, data=np.asarray(stream.codes), unit="n.a.", timestamps=np.asarray(stream.times_s, np.float64),
        description=f"{stream.modality}: {labels}",
    )  # fmt: skip
    _holder(nwb, "behavior", BehavioralEvents).add_timeseries(series)
    return series


def _table(nwb: Any, key: str, stream: Intervals) -> Any:
    from hdmf.common import VectorData, VectorIndex
    from pynwb.epoch import TimeIntervals

    columns: list[Any] = [
        VectorData(name="start_time", description="start in seconds", data=np.asarray(stream.start_s, np.float64)),
        VectorData(name="stop_time", description="stop in seconds", data=np.asarray(stream.stop_s, np.float64)),
    ]
    taken = {"id", "start_time", "stop_time", "timeseries"}
    for column, values in stream.columns.items():
        name = column.replace("/", "_").replace(":", "_")
        while name in taken:
            name += "_"
        taken.add(name)
        array = np.asarray(values)
        data: Any = [str(v) for v in array.tolist()] if array.dtype.kind in "UOS" else array
        if name == "tags":  # NWB's own column: a list a row, which the reader joins by commas
            words = [str(v).split(",") for v in data]
            target = VectorData(name=name, description=column, data=[w for row in words for w in row])
            columns += [VectorIndex(name="tags_index", data=np.cumsum([len(row) for row in words]), target=target)]
            columns.append(target)
        else:
            columns.append(VectorData(name=name, description=column, data=data))
    table = TimeIntervals(name=key if key != "invalid_times" else "invalid_times_", description=stream.modality,
                          columns=columns)  # fmt: skip
    if key in _RESERVED[:2]:
        setattr(nwb, key, table)
    else:
        nwb.add_time_intervals(table)
    return table


def _samples(nwb: Any, key: str, stream: Samples, stem: str) -> tuple[Any, tuple[np.ndarray, np.ndarray] | None]:
    from pynwb import TimeSeries, behavior
    from pynwb.ecephys import LFP, ElectricalSeries
    from pynwb.image import ImageSeries
    from pynwb.ophys import DfOverF, Fluorescence, RoiResponseSeries

    clock: dict[str, Any] = (
        {"rate": float(stream.rate_hz), "starting_time": float(stream.t0_s)}
        if stream.rate_hz is not None and not isinstance(stream.values, Frames)
        else {"timestamps": stream.times()}
    )
    common = {"name": key, "description": f"{stream.modality} in {stream.unit}", **clock}
    if isinstance(stream.values, Frames):
        file = f"{stem}_{key}{PurePosixPath(stream.values.index.path).suffix}"
        series = ImageSeries(**common, external_file=[file], format="external", unit="n.a.", starting_frame=[0])
        nwb.add_acquisition(series)
        return series, None
    wide = stream.values.shape[1:]
    electrodes = stream.modality in _ELECTRODES and stream.unit in IN_VOLTS and len(wide) < 2
    data, scale = _stored(stream, electrodes=electrodes)
    one = (float(scale[0][0]), float(scale[1][0])) if scale else (1.0, 0.0)
    if electrodes:
        volts = IN_VOLTS[stream.unit]
        same = scale is None or bool(np.all(scale[0] == scale[0][0]))
        series = ElectricalSeries(
            **common, data=data, electrodes=_electrodes(nwb, key, stream), conversion=volts * (one[0] if same else 1.0),
            offset=one[1] * volts, channel_conversion=None if same or scale is None else scale[0],
        )  # fmt: skip
        if stream.modality == "lfp":
            _holder(nwb, "ecephys", LFP).add_electrical_series(series)
        else:
            nwb.add_acquisition(series)
        return series, scale
    common |= {"data": data, "unit": stream.unit, "conversion": one[0], "offset": one[1]}
    if stream.modality in _SPATIAL and len(wide) < 2 and sum(wide) <= 3:
        series = behavior.SpatialSeries(**common, reference_frame="not stated")
        _holder(nwb, "behavior", getattr(behavior, _SPATIAL[stream.modality])).add_spatial_series(series)
    elif stream.modality == "calcium" and len(wide) == 1:
        series = RoiResponseSeries(**common, rois=_rois(nwb, key, stream))
        kind = DfOverF if stream.unit == "dF/F" else Fluorescence
        _holder(nwb, "ophys", kind).add_roi_response_series(series)
    else:
        series = TimeSeries(**common)
        if stream.modality == "pupil":
            _holder(nwb, "behavior", behavior.PupilTracking).add_timeseries(series)
        elif stream.modality in ("behaviour", "behavior", "running", "wheel", "force", "velocity"):
            _holder(nwb, "behavior", behavior.BehavioralTimeSeries).add_timeseries(series)
        else:
            nwb.add_acquisition(series)
    return series, scale


def _electrodes(nwb: Any, key: str, stream: Samples) -> Any:
    regions = {r for r in stream.channels.regions if r}
    device = nwb.devices["not stated"] if "not stated" in nwb.devices else nwb.create_device("not stated")
    place = regions.pop() if len(regions) == 1 else "unknown" if not regions else "several, see the table"
    group = nwb.create_electrode_group(name=key, description=f"channels of {key}", location=place, device=device)
    if nwb.electrodes is None or "channel_name" not in nwb.electrodes.colnames:
        nwb.add_electrode_column(name="channel_name", description="name of the channel")
    first = 0 if nwb.electrodes is None else len(nwb.electrodes)
    where = stream.channels.positions_um
    for row, (channel, region) in enumerate(zip(stream.channels.ids, stream.channels.regions)):
        x, y, z = (float("nan"),) * 3 if where is None else (float(v) for v in where[row])
        nwb.add_electrode(x=x, y=y, z=z, location=region or "unknown", group=group, channel_name=channel)
    rows = list(range(first, first + len(stream.channels)))
    return nwb.create_electrode_table_region(region=rows, description=f"electrodes of {key}")


def _rois(nwb: Any, key: str, stream: Samples) -> Any:
    """A table of cells; NWB wants a mask of each and the lake keeps none: one pixel of weight 0 stands there."""
    from pynwb.ophys import ImageSegmentation, OpticalChannel, PlaneSegmentation

    device = nwb.devices["not stated"] if "not stated" in nwb.devices else nwb.create_device("not stated")
    light = OpticalChannel(name="not stated", description="not stated", emission_lambda=float("nan"))
    places = sorted({r for r in stream.channels.regions if r})
    plane = nwb.create_imaging_plane(
        name=f"plane of {key}", optical_channel=light, description="not stated", device=device,
        excitation_lambda=float("nan"), indicator="not stated", location=", ".join(places) or "unknown",
    )  # fmt: skip
    cells = PlaneSegmentation(name=f"cells of {key}", description="masks are placeholders of weight 0",
                              imaging_plane=plane)  # fmt: skip
    cells.add_column(name="cell_name", description="name of the cell")
    for name in stream.channels.ids:
        cells.add_roi(pixel_mask=[(0, 0, 0.0)], cell_name=name)
    _holder(nwb, "ophys", ImageSegmentation).add_plane_segmentation(cells)
    return cells.create_roi_table_region(region=list(range(len(stream.channels))), description=f"cells of {key}")


def _stored(stream: Samples, *, electrodes: bool) -> tuple[Any, tuple[np.ndarray, np.ndarray] | None]:
    """What is written, and the (C,) scales and (C,) offsets of integers.

    Integers stay integers where NWB can state their law: one offset for all, and one scale but for electrodes.
    """
    values = stream.values
    if isinstance(values, Scaled):
        same_scale = electrodes or len(np.unique(values.scale)) == 1
        if same_scale and len(np.unique(values.offset)) == 1:
            return _in_pieces(values.values), (values.scale, values.offset)
    return _in_pieces(values), None


def _in_pieces(values: Any) -> Any:
    """Values as they are, read in pieces where they lie on disk."""
    if isinstance(values, np.ndarray) or not len(values):
        return np.asarray(values)
    from hdmf.data_utils import GenericDataChunkIterator

    class Pieces(GenericDataChunkIterator):
        def _get_data(self, selection: tuple[slice, ...]) -> np.ndarray:
            return np.asarray(values[selection[0]])[(slice(None), *selection[1:])]

        def _get_maxshape(self) -> tuple[int, ...]:
            return tuple(int(n) for n in np.shape(values))

        def _get_dtype(self) -> np.dtype:
            return np.dtype(values.dtype)

    return Pieces(buffer_gb=_BUFFER_GB)
