"""The client of a lake that is elsewhere: one obstore store an address, and its errors as sentences.

Credentials and the endpoint come from the AWS variables (``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, ...,
``AWS_SKIP_SIGNATURE=true`` for anonymous reading). Failures that may pass are tried again by obstore for a bounded
time; it ignores Retry-After.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from neurofmx.errors import ConfigError, Denied, LakeCorrupt, NeurofmxError, NoSpace, NotThere, Transient

RETRIES, RETRY_S = 5, 60
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_USED_BY: dict[str, int] = {}


def client(url: str, endpoint: str, credentials: tuple[tuple[str, str], ...] = ()) -> Any:
    """The store of an address, one a process.

    Args:
        url: such as ``s3://bucket/prefix``.
        endpoint: of another service than AWS, ``""`` for AWS itself.
        credentials: settings by obstore's names that go before those of the environment.

    Raises:
        ConfigError: this process was forked from one that had asked before.
    """
    # obstore's threads do not live on in a forked child: a request there would wait for ever
    if _USED_BY.setdefault("pid", os.getpid()) != os.getpid():
        raise ConfigError(f"lake {url}", got="a process that was forked after a lake on S3 had been read",
                          expected="one that was spawned",
                          fix="Use the methods spawn or forkserver of multiprocessing.")  # fmt: skip
    return _client(url, endpoint, credentials)


@functools.lru_cache(maxsize=8)
def _client(url: str, endpoint: str, credentials: tuple[tuple[str, str], ...]) -> Any:
    from obstore import store

    backoff: Any = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S), "backoff": backoff}
    options: Any = {"timeout": "60s", "connect_timeout": "10s", "allow_http": endpoint.startswith("http://")}
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    other: Any = {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        other["region"] = "us-east-1"
    other |= dict(credentials)
    return store.S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=retry, **other)


@contextlib.contextmanager
def said(url: str, name: str) -> Iterator[None]:
    """Turns what the server of a lake said of an object into an error that names it.

    Raises:
        NotThere, Denied, NoSpace, Transient, LakeCorrupt: by what it said; failed preconditions are let through.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, NotModifiedError, PreconditionError):
        raise
    except (BaseError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and error.errno is not None:
            raise  # a file of this machine
        raise _error(url, name, str(error)) from error


def _error(url: str, name: str, text: str) -> NeurofmxError:
    status, code, first = _STATUS.search(text), _CODE.search(text), text.split("\n")[0]
    number = int(status[1]) if status else 0
    got = " ".join(str(part) for part in (number or "", code[1] if code else "") if part) or first
    where = f"object {url}/{name}" if name else f"lake {url}"
    if "NoSuchBucket" in text:
        return NotThere(f"bucket of {url}", got=got, expected="one that exists", fix="Make it first.")
    if number == 404 or first.endswith("not found"):
        return NotThere(where, got=got)
    if number in (401, 403) or "privileges" in first or "credential" in text.lower():
        return Denied(
            where, got=got, expected="credentials that may do this",
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true to read anonymously.",
        )  # fmt: skip
    if number == 416:
        return LakeCorrupt(where, got="fewer bytes than the catalog says", fix="Run: neurofmx lake verify")
    if number == 507 or re.search("Quota|InsufficientStorage|NoSpace", text):
        return NoSpace(where, got=got, expected="room for it", fix="Free some space in the bucket and run again.")
    return Transient(where, got=got, expected="an answer", fix=f"It was asked {RETRIES + 1} times; try again later.")
