"""Overrides and round trips of typed configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from neurofmx.config import from_plain, override
from neurofmx.errors import ConfigError
from neurofmx.provenance import digest_of, plain


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    kind: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str = "r"
    steps: int = 10
    widths: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    optim: Optim = Optim()


def test_override_reaches_nested_fields_and_keeps_the_rest() -> None:
    new = override(Recipe(), ["optim.lr=3e-4", "steps=20", "widths=[4,5]", "name=x", "limit=null"])
    assert (new.optim.lr, new.steps, new.widths, new.name, new.limit) == (3e-4, 20, (4, 5), "x", None)
    assert new.optim.kind == "adamw"


def test_typo_names_the_nearest_field() -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr_.*optim\.lr'"):
        override(Recipe(), ["optim.lr_=1"])


@pytest.mark.parametrize("setting", ["steps=1.5", "optim.kind=sgd", "steps", "steps.x=1", "pair=[1]", "limit=many"])
def test_values_of_another_type_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError):
        override(Recipe(), [setting])


def test_plain_form_round_trips_and_digest_follows_content() -> None:
    recipe = override(Recipe(), ["optim.lr=0.5", "limit=3"])
    assert from_plain(Recipe, plain(recipe)) == recipe
    assert digest_of(recipe) == digest_of(from_plain(Recipe, plain(recipe)))
    assert digest_of(recipe) != digest_of(Recipe())


def test_unknown_field_of_a_stored_config_is_named() -> None:
    with pytest.raises(ConfigError, match="stepz"):
        from_plain(Recipe, {"stepz": 1})
