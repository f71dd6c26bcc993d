"""Is an HDF5 file an NWB file, does it follow its schema, and do its dates agree with one another."""

from __future__ import annotations

import functools
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from neurofmx.types import Check


def judge_nwb(path: Path) -> tuple[Check, ...]:
    """Judges a whole HDF5 file by the rules of NWB.

    Args:
        path: the file.

    Returns:
        ``nwb_version``; where that passes also ``nwb_schema`` (pynwb's validator) and ``nwb_dates``.
    """
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            version = handle.attrs.get("nwb_version") or handle.get("nwb_version", b"")
            version = _text(version[()] if isinstance(version, h5py.Dataset) else version)
            names = ", ".join(sorted(handle)[:4])
            dates = _dates(handle) if version else ("", "")
            cached = _cached(handle) if version else {}
    except OSError as error:
        return (Check(name="nwb_version", passed=False, severity="block",
                      evidence=f"{path.name} cannot be opened as HDF5: {error}"),)  # fmt: skip
    if not version:
        return (Check(name="nwb_version", passed=False, severity="block",
                      evidence=f"{path.name} is sound HDF5 but no NWB file: it has no nwb_version (it holds "
                               f"{names or 'nothing'})"),)  # fmt: skip
    return (
        Check(name="nwb_version", passed=True, severity="block", evidence=f"NWB {version}"),
        _schema(path, cached),
        _order(*dates),
    )


def _schema(path: Path, cached: dict[str, str]) -> Check:
    import pynwb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the schema inside the file where it is another one; else the same one, which is loaded already
        own = any(_installed().get(name) != version for name, version in cached.items())
        try:
            errors = [str(error) for error in pynwb.validate(path=str(path), use_cached_namespaces=own)]
        except (OSError, TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError) as error:
            said = f"pynwb's validator cannot follow the file: {type(error).__name__}: {error}"
            return Check(name="nwb_schema", passed=False, severity="block", evidence=said)
    if errors:
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        said = f"{len(errors)} errors against the NWB schema, expected none: {'; '.join(errors[:3])}{more}"
    else:
        source = (
            ", ".join(f"{name} {version}" for name, version in sorted(cached.items())) or "installed, none in the file"
        )
        said = f"pynwb's validator finds no error (schema: {source})"
    return Check(name="nwb_schema", passed=not errors, severity="block", evidence=said)


@functools.cache
def _installed() -> dict[str, str]:
    """Namespace -> version of the schemas that pynwb brings; pynwb copies all of them to tell."""
    import pynwb

    known = pynwb.get_manager().namespace_catalog
    return {name: str(known.get_namespace(name)["version"]) for name in known.namespaces}


def _cached(handle: Any) -> dict[str, str]:
    """Namespace -> version of the schemas that the file carries; none is fine."""
    specs = handle.get("specifications")
    return {} if specs is None else {name: max(group, default="") for name, group in specs.items()}


def _dates(handle: Any) -> tuple[str, str]:
    start, made = handle.get("session_start_time"), handle.get("file_create_date")
    return (
        _text(start[()]) if start is not None else "",
        _text(made[0]) if made is not None and made.shape and len(made) else "",
    )


def _order(start: str, made: str) -> Check:
    """A session cannot start after its file was made; no look at this machine's clock is needed."""
    try:
        late = datetime.fromisoformat(start) > datetime.fromisoformat(made)
        said = f"the session starts {start}, the file was made {made}" + (
            ": it cannot start after that" if late else ""
        )
    except (ValueError, TypeError):  # one of them has no zone, or is no ISO 8601
        late, said = (
            False,
            f"session_start_time {start or 'none'} and file_create_date {made or 'none'} cannot be compared",
        )
    return Check(name="nwb_dates", passed=not late, severity="block", evidence=said)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
