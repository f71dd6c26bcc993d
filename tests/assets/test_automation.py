"""The nightly listing and the inbox: what is new becomes partitions and runs, once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from neurofmx.assets import schedules
from neurofmx.assets.definitions import definitions
from neurofmx.assets.partitions import inbox_source
from neurofmx.assets.resources import LakeResource
from neurofmx.assets.schedules import nightly
from neurofmx.assets.sensors import inbox_sensor
from neurofmx.ingest.sessions import Source
from neurofmx.lake import Lake

Tiny = Callable[[int], Source]


def _tick(source: Source, lake: Lake, instance: dg.DagsterInstance) -> dg.SkipReason | list[dg.RunRequest]:
    context = dg.build_schedule_context(instance=instance, resources={"lake": LakeResource(root=str(lake.root))})
    told = nightly(source)(context)
    assert isinstance(told, (dg.SkipReason, list))
    return told


def test_nightly_listing_adds_what_is_new(lake: Lake, instance: dg.DagsterInstance, tiny: Tiny) -> None:
    first = _tick(tiny(2), lake, instance)
    assert isinstance(first, list)
    assert [request.partition_key for request in first] == instance.get_dynamic_partitions("simulated:tiny@1")
    again = _tick(tiny(2), lake, instance)
    assert isinstance(again, dg.SkipReason)
    third = _tick(tiny(3), lake, instance)
    assert isinstance(third, list)
    assert [r.partition_key for r in third] == ["simulated:tiny@1/sim-a-s002"]
    assert len(instance.get_dynamic_partitions("simulated:tiny@1")) == 3


def test_a_night_takes_no_more_than_its_share(
    lake: Lake, instance: dg.DagsterInstance, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "NEW_A_NIGHT", 2)
    source = tiny(5)
    nights = [_tick(source, lake, instance) for _ in range(4)]
    assert [len(n) if isinstance(n, list) else 0 for n in nights] == [2, 2, 1, 0]


def test_an_archive_that_is_down_is_asked_again_tomorrow(lake: Lake, instance: dg.DagsterInstance) -> None:
    # nothing listens on port 9 of this machine
    source = Source(archive="physionet", dataset="x", version="1", address="http://127.0.0.1:9")
    told = _tick(source, lake, instance)
    assert isinstance(told, dg.SkipReason)
    assert "next night" in str(told.skip_message)


def test_schedules_of_one_archive_do_not_all_run_at_once() -> None:
    crons = {nightly(Source(archive="dandi", dataset=f"{i:06d}", version="draft")).cron_schedule for i in range(20)}
    assert len(crons) > 15


def _watch(lake: Lake, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    repository = definitions(lake).get_repository_def()
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository, resources={"lake": LakeResource(root=str(lake.root))}
    )
    told = inbox_sensor(lake)(context)
    assert isinstance(told, (dg.SensorResult, dg.SkipReason))
    return told


def test_inbox_takes_a_file_once_it_has_settled(lake: Lake, instance: dg.DagsterInstance) -> None:
    assert isinstance(_watch(lake, instance), dg.SkipReason)
    box = Path(inbox_source(lake).address)
    path = box / "song.wav"
    path.write_bytes(b"RIFF")
    copying = _watch(lake, instance)
    assert isinstance(copying, dg.SensorResult)
    assert copying.run_requests == []
    old = time.time() - 60
    os.utime(path, (old, old))
    settled = _watch(lake, instance)
    assert isinstance(settled, dg.SensorResult)
    (request,) = settled.run_requests or []
    assert request.partition_key == "folder:inbox@1/song"
    (added,) = settled.dynamic_partitions_requests or []
    assert list(added.partition_keys) == [request.partition_key]
    assert (_watch(lake, instance).run_requests or [])[0].run_key == request.run_key  # type: ignore[union-attr]
    path.write_bytes(b"RIFF again")
    os.utime(path, (old + 30, old + 30))
    replaced = _watch(lake, instance)
    assert isinstance(replaced, dg.SensorResult)
    assert (replaced.run_requests or [])[0].run_key != request.run_key
