"""The product's errors as Dagster's: what may pass is tried again, what will not pass fails at once, with its fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg

from neurofmx.errors import NeurofmxError

MAX_RETRIES = 3
PATIENCE_S = 30.0


@contextlib.contextmanager
def as_dagster_failures() -> Iterator[None]:
    """Turns a `NeurofmxError` raised inside into a retry (transient) or a failure that is not tried again."""
    try:
        yield
    except NeurofmxError as error:
        if error.retryable:
            # a server that asked to be left alone said for how long
            wait_s = getattr(error, "wait_s", 0.0) or PATIENCE_S
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait_s) from error
        told = {"kind": type(error).__name__, "what": error.what, "expected": error.expected, "fix": error.fix}
        metadata = {name: text for name, text in told.items() if text}
        if error.got is not None:
            metadata["got"] = str(error.got)
        raise dg.Failure(description=str(error), metadata=metadata, allow_retries=False) from error
