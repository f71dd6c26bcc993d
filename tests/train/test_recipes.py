"""Recipes are complete, digested whole, and refuse what they don't have."""

from __future__ import annotations

import pytest

from neurofmx.config import from_plain, override
from neurofmx.errors import ConfigError
from neurofmx.provenance import plain
from neurofmx.train.recipes import RECIPES, Recipe, recipe_named


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_itself_again_from_its_plain_form(name: str) -> None:
    recipe = recipe_named(name)
    assert recipe.name == name
    assert from_plain(Recipe, plain(recipe)) == recipe
    assert len(recipe.digest()) == 16


def test_digests_tell_recipes_and_every_setting_apart() -> None:
    settings = ["seed=1", "optim.lr=1e-4", "model.width=96", "feed.bins=64", "stop.patience=1", "linear.rank=3"]
    changed = [override(recipe_named("tiny"), [s]).digest() for s in settings]
    all_of_them = [RECIPES[name]().digest() for name in RECIPES] + changed
    assert len(set(all_of_them)) == len(all_of_them)
    assert recipe_named("tiny").digest() == override(recipe_named("tiny"), ["seed=0"]).digest()


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="got huge; expected one of .*laptop.*tiny"):
        recipe_named("huge")


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'optim.steps'"):
        override(recipe_named("tiny"), ["optim.step=3"])
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        override(recipe_named("tiny"), ["modell.width=3"])


def test_values_of_another_type_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="optim.steps"):
        override(recipe_named("tiny"), ["optim.steps=many"])
    with pytest.raises(ConfigError, match="no future bin"):
        override(recipe_named("causal"), ["model.lags=[0, 1]"])
