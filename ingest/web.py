"""Asking servers politely: one request with typed errors, patience with those that may recover, addresses.

`requests` rather than obstore: obstore hides Retry-After, needs a server that answers ranges, and does not
show the status of a failure; all three decide here what happens next.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neurofmx.errors import Denied, MalformedFile, NotThere, Transient

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

ATTEMPTS = 5
LONGEST_WAIT_S = 60.0  # a server that asks for more is left to the caller's own schedule
_TIMEOUT_S = (10.0, 60.0)  # to connect, between bytes
_HEADERS = {"User-Agent": "neurofmx", "Accept-Encoding": "identity"}  # the bytes as they are stored
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}


class Busy(Transient):
    """A server that asked to be left alone for ``wait_s`` seconds (0 where it did not say)."""

    wait_s: float = 0.0


def is_url(address: str) -> bool:
    """Whether an address is one of the web rather than a folder."""
    return address.startswith(("http://", "https://"))


def join(address: str, path: str) -> str:
    """The URL of a file of an archive: below a base URL, or a ``file://`` URL below a folder."""
    if is_url(address):
        return f"{address.rstrip('/')}/{urllib.parse.quote(path)}"
    return (Path(address).expanduser().resolve() / path).as_uri()


def local_path(url: str) -> Path:
    """The path that a ``file://`` URL means."""
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))


def ask(url: str, *, headers: Mapping[str, str] | None = None, body: Any = None) -> requests.Response:
    """Sends one request and returns the open answer, unread; statuses become errors.

    Args:
        url: an ``http(s)`` address; redirects are followed.
        headers: added to the standing ones.
        body: JSON to POST; None sends a GET.

    Raises:
        NotThere: 404, 410 or another refusal of the request itself.
        Denied: 401 or 403.
        Busy: 429, 5xx or no connection; ``wait_s`` is what Retry-After said.
    """
    import requests

    try:
        answer = requests.request(
            "GET" if body is None else "POST",
            url,
            headers={**_HEADERS, **(headers or {})},
            json=body,
            stream=True,
            timeout=_TIMEOUT_S,
        )
    except requests.RequestException as error:
        # requests' own text nests the same fact three deep; the type and the host say what matters
        raise Busy(
            url, got=type(error).__name__, expected="an answer", fix="Check the network and the address."
        ) from error
    status = answer.status_code
    if status in (200, 206, 304, 416):
        return answer
    answer.close()
    if status in (401, 403):
        raise Denied(url, got=f"HTTP {status}", expected="open access", fix="Ask the archive for access, or log in.")
    if status in _MAY_PASS:
        asked = answer.headers.get("Retry-After", "")
        error = Busy(
            url,
            got=f"HTTP {status}" + (f", Retry-After {asked}" if asked else ""),
            expected="HTTP 200",
            fix="Try again later.",
        )
        error.wait_s = _seconds(asked)
        raise error
    raise NotThere(url, got=f"HTTP {status}", expected="HTTP 200", fix="Check dataset, version and path.")


def _seconds(retry_after: str) -> float:
    if not retry_after:
        return 0.0
    if retry_after.isdigit():
        return float(retry_after)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # neither form of the standard: no wish that could be honoured
        return 0.0


def patiently(action: Callable[[], T], *, progress: Callable[[], int] = lambda: 0) -> T:
    """Repeats an action while it fails in a way that may pass, waiting as long as the server asks.

    Args:
        action: may raise `Transient`.
        progress: a number that grows when a failed try still achieved something, which renews the patience.

    Raises:
        Transient: it failed `ATTEMPTS` times without progress, or the server asked for more than `LONGEST_WAIT_S`.
    """
    tried, reached = 0, progress()
    while True:
        try:
            return action()
        except Transient as error:
            tried = 1 if progress() > reached else tried + 1
            reached = progress()
            wait_s = max(getattr(error, "wait_s", 0.0), 0.2 * 2 ** (tried - 1))
            if tried >= ATTEMPTS or wait_s > LONGEST_WAIT_S:
                raise
            time.sleep(wait_s)


def read_text(url: str) -> str:
    """The text behind a ``file://`` or ``http(s)://`` URL.

    Raises:
        NotThere: nothing is there.
        Denied: the server will not give it.
        Transient: it failed several times.
        MalformedFile: the bytes are not UTF-8.
    """
    if is_url(url):
        raw = patiently(lambda: _body(url))
    else:
        path = local_path(url)
        if not path.is_file():
            raise NotThere(f"file {path}", expected="a file laid out as the archive lays it out")
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedFile(url, got=f"byte {error.start} is not UTF-8", expected="text") from error


def _body(url: str, body: Any = None) -> bytes:
    import requests

    with ask(url, body=body) as answer:
        try:
            return answer.content
        except requests.RequestException as error:
            raise Busy(url, got=type(error).__name__, expected="a whole answer", fix="Try again.") from error


def read_json(url: str, *, body: Any = None) -> Any:
    """The JSON behind a URL; with ``body``, the answer to a POST of it (GraphQL).

    Raises:
        MalformedFile: the answer is not JSON; and what `read_text` raises.
    """
    text = read_text(url) if body is None else patiently(lambda: _body(url, body)).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise MalformedFile(url, got=text[:60], expected="JSON", fix="Check the address.") from error
