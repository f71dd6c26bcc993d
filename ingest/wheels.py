"""Data files that wheels of a Python package index carry: taken out as bytes, never installed or imported."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from neurofmx.errors import ConfigError, MalformedFile, NotThere, Transient

_SCHEME = "wheel://"


def wheel_url(requirement: str, member: str) -> str:
    """The address of a file inside a wheel, such as ``wheel://nitime==0.12.1/nitime/data/fmri_timeseries.csv``."""
    return f"{_SCHEME}{requirement}/{member}"


@contextlib.contextmanager
def open_member(url: str, cache: Path) -> Iterator[IO[bytes]]:
    """Opens a file inside a wheel, downloading the wheel once into ``cache``.

    Args:
        url: ``wheel://package==version/inner/path``.
        cache: folder that keeps wheels.

    Raises:
        ConfigError: the URL has another shape.
        NotThere: the index has no such version, or the wheel no such file.
        Transient: the index cannot be reached.
        MalformedFile: the wheel is not a zip file.
    """
    requirement, found, member = url.removeprefix(_SCHEME).partition("/")
    if not (url.startswith(_SCHEME) and found and "==" in requirement):
        raise ConfigError("address of a file in a wheel", got=url, expected="wheel://package==version/inner/path")
    wheel = download(requirement, cache)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as handle:
            yield handle
    except KeyError as error:
        raise NotThere(f"{member} in {wheel.name}", expected="a file of that wheel") from error
    except zipfile.BadZipFile as error:
        wheel.unlink()
        raise MalformedFile(f"wheel {wheel.name}", got=str(error), expected="a zip file", fix="Run again.") from error


def download(requirement: str, cache: Path) -> Path:
    """The wheel of an exact version, by ``pip download --no-deps`` in a process of its own; one download a cache."""
    folder = cache / requirement
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{requirement}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not any(folder.glob("*.whl")):
            with tempfile.TemporaryDirectory(dir=cache, prefix="pip-") as partial:
                _pip(requirement, partial)
                shutil.rmtree(folder, ignore_errors=True)
                os.mkdir(folder)
                for wheel in Path(partial).glob("*.whl"):
                    os.replace(wheel, folder / wheel.name)
    return next(folder.glob("*.whl"))


def _pip(requirement: str, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
    if "No matching distribution" in done.stderr and "from versions: none" not in done.stderr:
        raise NotThere(f"wheel {requirement}", got=" ".join(said), expected="that version in the package index")
    raise Transient(
        f"wheel {requirement}",
        got=" ".join(said) or f"pip ended with {done.returncode}",
        expected="a package index that pip can reach",
        fix="Check the network and pip's configuration, then run again.",
    )
