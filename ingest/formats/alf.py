"""IBL sessions in ALF: trials, wheel, photometry, spikes, licks, cameras; what a session lacks is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from neurofmx.ingest.formats import alf_behaviour, alf_photometry, alf_spikes
from neurofmx.ingest.formats.alf_files import Objects, objects
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.types import Events, RawFile, Recording, Samples, Stream, sanitise

# object -> function of (root, objects, collection, notes); photometry has more than one layout and comes after
_READERS = {
    "trials": alf_behaviour.trials,
    "wheel": alf_behaviour.wheel,
    "wheelMoves": alf_behaviour.wheel_moves,
    "licks": alf_behaviour.licks,
    "leftCamera": alf_behaviour.left_camera,
    "rightCamera": alf_behaviour.right_camera,
    "bodyCamera": alf_behaviour.body_camera,
    "spikes": alf_spikes.streams,
}
_WITH = {"spikes": ("clusters", "channels")}  # objects that a reader looks into besides


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one session folder on the session clock; an incomplete one as far as it goes.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says; ``options["session_dir"]`` is the session's folder.
        files: its files.

    Raises:
        MalformedFile: a file is damaged or contradicts another, or nothing is there that can be read.
    """
    notes: list[str] = []
    paths = [file.path for file in files]
    found = objects(paths, str(session.options.get("session_dir", ".")), notes)
    streams: dict[str, Stream] = {}
    used = alf_photometry.files(paths, found)
    holders = Counter(kind for _, kind in found)
    for kind, reader in _READERS.items():
        for collection in sorted(folder for folder, name in found if name == kind):
            for name, stream in reader(root, found, collection, notes).items():
                alone = holders[kind] == 1 and name not in streams
                streams[name if alone else f"{name}_{sanitise(collection or 'alf')}"] = stream
            parts = ((collection, name) for name in (kind, *_WITH.get(kind, ())))
            used |= {file.path for part in parts for file in found.get(part, {}).values()}
    regions = alf_photometry.regions(root, found)
    streams |= alf_photometry.streams(root, paths, found, regions, notes)
    _missing(found, streams, regions, notes)
    left = [PurePosixPath(path).name for path in paths if path not in used]
    if left:
        notes.append(f"files left out: {', '.join(left[:12])}{f' and {len(left) - 12} more' if len(left) > 12 else ''}")
    return assemble(session, files, streams, notes=notes)


def _missing(found: Objects, streams: dict[str, Stream], regions: dict[str, str], notes: list[str]) -> None:
    if regions and not any(name.startswith("photometry") for name in streams):
        places = ", ".join(f"{fibre} in {region}" for fibre, region in regions.items())
        notes.append(f"incomplete: the session names {len(regions)} fibres ({places}) and holds no photometry signal")
    if not any(kind == "trials" for _, kind in found):
        notes.append("incomplete: no trials")
    if not any(isinstance(stream, (Samples, Events)) for stream in streams.values()):
        notes.append("incomplete: no signal of brain or behaviour, trials only")
