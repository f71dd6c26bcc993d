"""The errors a person meets: each names the thing, the value, what was expected and what to do."""

from __future__ import annotations


class NeurofmxError(Exception):
    """A refusal with a reason that a person can act on.

    Args:
        what: the thing that is wrong (a file, a field, a recording).
        got: the value that was found.
        expected: what would have been right.
        fix: what to do about it.
    """

    retryable = False

    def __init__(self, what: str, *, got: object = None, expected: str = "", fix: str = "") -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        parts = [what]
        if got is not None:
            parts.append(f"got {got!r}" if not isinstance(got, str) else f"got {got}")
        if expected:
            parts.append(f"expected {expected}")
        text = "; ".join(parts)
        super().__init__(f"{text}. {fix}" if fix else text)

    def __reduce__(self):  # keyword-only arguments do not survive pickling by themselves
        return (_rebuild, (type(self), self.what, self.got, self.expected, self.fix))


def _rebuild(cls: type[NeurofmxError], what: str, got: object, expected: str, fix: str) -> NeurofmxError:
    return cls(what, got=got, expected=expected, fix=fix)


class MalformedFile(NeurofmxError):
    """A file that is not what its name or its header says."""


class Refused(NeurofmxError):
    """A recording that a blocking check refused; it goes to quarantine with its checks."""


class NotThere(NeurofmxError):
    """An address, dataset, recording or score that does not exist."""


class Denied(NeurofmxError):
    """The server knows the thing and will not give it."""


class NoSpace(NeurofmxError):
    """Not enough room on the disk."""


class Mismatch(NeurofmxError):
    """Bytes whose digest or size is not the published one."""


class Transient(NeurofmxError):
    """A fault that may pass: the caller may try again."""

    retryable = True


class ConfigError(NeurofmxError):
    """A setting that does not exist or does not fit."""


class Leakage(NeurofmxError):
    """Test data that would be seen in training."""


class LakeCorrupt(NeurofmxError):
    """A published group whose bytes are not what was published."""


class Conflict(NeurofmxError):
    """Two writers of one thing: the other was first, and its version stays."""


class Newer(NeurofmxError):
    """Something that a newer version of this code wrote."""
