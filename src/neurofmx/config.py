"""The one typed config mechanism: frozen dataclasses, overridden by dotted names, digested whole."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from neurofmx.errors import ConfigError

T = TypeVar("T")


def override(config: T, settings: Iterable[str]) -> T:
    """Returns a copy of a config with ``dotted.name=value`` settings applied.

    Args:
        config: a frozen dataclass, possibly nested.
        settings: texts such as ``optim.lr=3e-4``; values are JSON, or a bare word for a string.

    Raises:
        ConfigError: a name that does not exist (the nearest is named), or a value of another type.
    """
    for setting in settings:
        name, found, text = setting.partition("=")
        if not found:
            raise ConfigError("setting", got=setting, expected="name=value, such as optim.lr=3e-4")
        config = _set(config, name.strip().split("."), text.strip(), name.strip())
    return config


def _set(config: Any, parts: list[str], text: str, whole: str) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    if parts[0] not in names:
        near = difflib.get_close_matches(parts[0], names, n=1)
        raise ConfigError(
            f"unknown setting {whole!r} of {type(config).__name__}",
            expected=f"one of {', '.join(names)}",
            fix=f"Did you mean {'.'.join([*whole.split('.')[: -len(parts)], near[0]])!r}?" if near else "",
        )
    hint = typing.get_type_hints(type(config))[parts[0]]
    if len(parts) > 1:
        inner = getattr(config, parts[0])
        if not dataclasses.is_dataclass(inner):
            raise ConfigError(f"setting {whole!r}", got=f"{parts[0]} is a plain value", expected="no further dots")
        return dataclasses.replace(config, **{parts[0]: _set(inner, parts[1:], text, whole)})  # type: ignore[type-var]
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    return dataclasses.replace(config, **{parts[0]: _coerce(hint, value, whole)})


def from_plain(cls: type[T], data: Mapping[str, Any]) -> T:
    """Rebuilds a dataclass from its plain form (the inverse of `provenance.plain`).

    Raises:
        ConfigError: a key that the dataclass does not have, or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            fix = f"Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown field {key!r} of {cls.__name__}", expected=f"one of {names}", fix=fix)
    return cls(**{key: _coerce(hints[key], value, key) for key, value in data.items()})


def _coerce(hint: Any, value: Any, name: str) -> Any:
    """Fits a JSON value to a type hint; numbers widen to float, lists become tuples, nothing else is guessed."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for arm in args:
            try:
                return _coerce(arm, value, name)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        if value in args:
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            if len(args) == 2 and args[1] is Ellipsis:
                return tuple(_coerce(args[0], v, name) for v in value)
            if len(args) == len(value):
                return tuple(_coerce(a, v, name) for a, v in zip(args, value))
    elif origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            return {k: _coerce(args[1], v, name) for k, v in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(typing.cast(type, hint), value)
    elif hint is float and (type(value) in (int, float) or value in ("nan", "inf", "-inf")):
        return float(value)
    elif hint is type(None) and value is None:
        return None
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f"setting {name!r}", got=value, expected=str(getattr(hint, "__name__", hint)))
