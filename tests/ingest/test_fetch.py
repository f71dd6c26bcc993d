"""Fetching over faulty loopback servers ends in the right bytes or in an error that names what is wrong."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurofmx.errors import ConfigError, Denied, Mismatch, NoSpace, NotThere, Transient
from neurofmx.ingest import fetch, web, wheels
from neurofmx.ingest.sessions import RemoteFile
from neurofmx.lake import Lake


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are noted instead of slept."""
    waited: list[float] = []
    monkeypatch.setattr(web.time, "sleep", waited.append)
    return waited


@pytest.fixture
def data(files_server) -> bytes:
    content = os.urandom(3 * fetch.BLOCK + 12345)
    (files_server.folder / "a.bin").write_bytes(content)
    return content


def remote(server, content: bytes, **changes) -> RemoteFile:
    known = {"size": len(content), "digests": {"sha256": hashlib.sha256(content).hexdigest()}}
    return RemoteFile(path="sub/a.bin", url=f"{server.url}/a.bin", **(known | changes))


def holds(lake: Lake, file, content: bytes) -> bool:
    return lake.raw_path(file.sha256).read_bytes() == content and file.size == len(content) and file.path == "sub/a.bin"


def leftovers(lake: Lake) -> list[str]:
    return [p.name for p in (lake.root / "tmp" / "fetch").iterdir() if p.suffix != ".lock"]


def test_plain(files_server, data, lake):
    file = fetch.fetch_file(remote(files_server, data), lake)
    assert holds(lake, file, data) and leftovers(lake) == []
    fetch.fetch_file(remote(files_server, data), lake)
    assert len(files_server.asked("/a.bin")) == 1, "bytes that are there by digest are not asked for again"


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_broken_off_is_resumed(files_server, data, lake, faults, kind):
    files_server.faults.append(faults.Fault("/a.bin", kind, at=2 * fetch.BLOCK))
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)
    first, second = files_server.asked("/a.bin")
    assert "Range" not in first.headers
    if kind == "truncate":  # after a reset the kernel may have thrown away what was on the way
        assert second.headers["Range"] == f"bytes={2 * fetch.BLOCK}-" and second.headers["If-Range"]


def test_what_came_is_kept_and_resumed_by_the_next_call(files_server, data, lake, faults):
    files_server.faults.append(faults.Fault("/a.bin", "truncate", at=fetch.BLOCK, then=web.ATTEMPTS))
    with pytest.raises(Transient):
        fetch.fetch_file(remote(files_server, data), lake)
    assert any(name.endswith(".part") for name in leftovers(lake))
    files_server.log.clear()
    files_server.faults.clear()
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)
    (asked,) = files_server.asked("/a.bin")
    assert asked.headers["Range"] == f"bytes={fetch.BLOCK}-"


def test_nothing_is_resumed_under_another_etag(files_server, data, lake, faults):
    files_server.faults.append(faults.Fault("/a.bin", "truncate", at=fetch.BLOCK, then=web.ATTEMPTS))
    with pytest.raises(Transient):
        fetch.fetch_file(remote(files_server, data), lake)
    changed = data[::-1]
    (files_server.folder / "a.bin").write_bytes(changed)
    files_server.faults.clear()
    assert holds(lake, fetch.fetch_file(remote(files_server, changed), lake), changed)


@pytest.mark.parametrize("absent", ["no_range", "no_etag"])
def test_server_without_ranges_or_etag_sends_the_whole_again(files_server, data, lake, faults, absent):
    files_server.faults += [
        faults.Fault("/a.bin", "truncate", at=fetch.BLOCK),
        faults.Fault("/a.bin", absent, times=-1),
    ]
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)


def test_corrupt_once_is_fetched_again(files_server, data, lake, faults):
    files_server.faults.append(faults.Fault("/a.bin", "corrupt"))
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)
    assert len(files_server.asked("/a.bin")) == 2


@pytest.mark.parametrize("digest", ["sha256", "md5", "dandi-etag"])
def test_wrong_digest_names_file_got_and_expected(files_server, data, lake, digest):
    wrong = {"sha256": "0" * 64, "md5": "0" * 32, "dandi-etag": "0" * 32 + "-1"}[digest]
    with pytest.raises(Mismatch) as error:
        fetch.fetch_file(remote(files_server, data, digests={digest: wrong}), lake)
    got = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "dandi-etag": hashlib.md5(hashlib.md5(data).digest()).hexdigest() + "-1",
    }[digest]
    for word in ("sub/a.bin", got, wrong):
        assert word in str(error.value)
    assert leftovers(lake) == [] and not any((lake.root / "raw").rglob("*.bin"))
    assert not lake.raw_path(hashlib.sha256(data).hexdigest()).exists()
    assert len(files_server.asked("/a.bin")) == 2


def test_wrong_size(files_server, data, lake):
    with pytest.raises(Mismatch, match=f"{len(data)} bytes; expected {len(data) + 1} bytes"):
        fetch.fetch_file(remote(files_server, data, size=len(data) + 1, digests={}), lake)


@pytest.mark.parametrize(("status", "kind"), [(404, NotThere), (410, NotThere), (401, Denied), (403, Denied)])
def test_final_refusals_are_asked_once(files_server, data, lake, faults, status, kind):
    files_server.faults.append(faults.Fault("/a.bin", "status", times=-1, status=status))
    with pytest.raises(kind, match=f"HTTP {status}"):
        fetch.fetch_file(remote(files_server, data), lake)
    assert len(files_server.asked("/a.bin")) == 1


def test_a_login_page_is_not_the_file(files_server, data, lake, faults):
    files_server.faults.append(faults.Fault("/a.bin", "page"))
    with pytest.raises(Denied, match="web page"):
        fetch.fetch_file(remote(files_server, data, digests={}, size=None), lake)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_honoured(files_server, data, lake, faults, status, _quick):
    files_server.faults.append(faults.Fault("/a.bin", "status", times=2, status=status, retry_after="7"))
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)
    assert _quick == [7.0, 7.0]


def test_a_long_retry_after_is_left_to_the_caller(files_server, data, lake, faults, _quick):
    files_server.faults.append(faults.Fault("/a.bin", "status", times=-1, status=429, retry_after="3600"))
    with pytest.raises(web.Busy, match="Retry-After 3600") as error:
        fetch.fetch_file(remote(files_server, data), lake)
    assert error.value.wait_s == 3600.0 and _quick == [] and error.value.retryable


def test_patience_ends(files_server, data, lake, faults, _quick):
    files_server.faults.append(faults.Fault("/a.bin", "status", times=-1, status=503))
    with pytest.raises(Transient, match="HTTP 503"):
        fetch.fetch_file(remote(files_server, data), lake)
    assert len(files_server.asked("/a.bin")) == web.ATTEMPTS


def test_slow_is_only_slow(files_server, data, lake, faults):
    files_server.faults.append(faults.Fault("/a.bin", "slow"))
    assert holds(lake, fetch.fetch_file(remote(files_server, data), lake), data)


def test_nobody_there(lake):
    with pytest.raises(Transient, match="ConnectionError"):
        fetch.fetch_file(RemoteFile(path="x", url="http://127.0.0.1:9/x"), lake)


def test_unchanged_without_a_published_digest_is_not_sent_again(files_server, data, lake):
    plain = remote(files_server, data, digests={})
    assert holds(lake, fetch.fetch_file(plain, lake), data)
    assert holds(lake, fetch.fetch_file(plain, lake), data)
    assert files_server.asked("/a.bin")[1].headers["If-None-Match"]
    (files_server.folder / "a.bin").write_bytes(data + b"more")
    assert fetch.fetch_file(remote(files_server, data, digests={}, size=None), lake).size == len(data) + 4


def test_no_room_is_known_before_the_first_byte(files_server, data, lake, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(NoSpace, match="1000 bytes free"):
        fetch.fetch_file(remote(files_server, data), lake)
    assert not any((lake.root / "raw").iterdir())


def test_a_disk_that_fills_up_midway(files_server, data, lake, monkeypatch):
    def full(block, writing, found):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_keep", full)
    with pytest.raises(NoSpace, match=r"a\.bin"):
        fetch.fetch_file(remote(files_server, data), lake)
    assert [n for n in leftovers(lake) if n.endswith(".part")] == [] and not any((lake.root / "raw").iterdir())


def test_local_file_and_data_url(tmp_path: Path, lake):
    path = tmp_path / "own file.bin"
    path.write_bytes(b"abc")
    file = fetch.fetch_file(RemoteFile(path="x", url=path.as_uri()), lake)
    again = fetch.fetch_file(RemoteFile(path="y", url="data:application/json;base64,YWJj"), lake)
    assert file.sha256 == again.sha256 == hashlib.sha256(b"abc").hexdigest() and path.exists()
    with pytest.raises(NotThere, match="gone"):
        fetch.fetch_file(RemoteFile(path="z", url=(tmp_path / "gone").as_uri()), lake)
    with pytest.raises(ConfigError, match="ftp"):
        fetch.fetch_file(RemoteFile(path="z", url="ftp://x/y"), lake)


def test_dandi_etag_of_several_parts():
    tag = fetch.DandiEtag(None)
    tag._part = 4
    for block in (b"ab", b"cdefg", b"hi"):
        tag.update(block)
    parts = b"".join(hashlib.md5(p).digest() for p in (b"abcd", b"efgh", b"i"))
    assert tag.hexdigest() == f"{hashlib.md5(parts).hexdigest()}-3"


def test_wheel_members(tmp_path: Path, lake, monkeypatch):
    """pip itself downloads a wheel, once; what index or wheel lack is named."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "toy-1-py3-none-any.whl", "w") as archive:
        archive.writestr("toy/data/a.txt", "hello")
        archive.writestr("toy-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
        archive.writestr("toy-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for name in ("a", "b"):
        file = fetch.fetch_file(RemoteFile(path=name, url=wheels.wheel_url("toy==1", "toy/data/a.txt")), lake)
        assert lake.raw_path(file.sha256).read_text() == "hello"
        (tmp_path / "toy-1-py3-none-any.whl").unlink(missing_ok=True)  # the second comes from the cache
    with pytest.raises(NotThere, match="toy/data/b.txt"):
        fetch.fetch_file(RemoteFile(path="b", url=wheels.wheel_url("toy==1", "toy/data/b.txt")), lake)
    with pytest.raises(Transient, match="toy==2"):
        fetch.fetch_file(RemoteFile(path="b", url=wheels.wheel_url("toy==2", "toy/data/b.txt")), lake)
    with pytest.raises(ConfigError, match="wheel://"):
        fetch.fetch_file(RemoteFile(path="b", url="wheel://toy"), lake)
