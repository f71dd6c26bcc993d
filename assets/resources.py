"""What assets are given: the lake, the recipe, where training runs, and who is told of progress."""

from __future__ import annotations

from typing import Literal

import dagster as dg

from neurofmx.lake import Lake


class LakeResource(dg.ConfigurableResource):
    """The lake that all assets read and write.

    Args:
        root: its folder, or its address on S3; ``""`` for ``$NEUROFMX_LAKE``, else ``./lake``.
    """

    root: str = ""

    def open(self) -> Lake:
        """Opens, or makes, the lake."""
        return Lake.open(self.root or None)


class RecipeResource(dg.ConfigurableResource):
    """Which model is trained, scored and explained; one choice for a whole run, so that its stages agree.

    Args:
        name: a recipe of ``neurofmx.train.recipes``.
        settings: overrides such as ``optim.lr=3e-4``.
    """

    name: str = "laptop"
    settings: list[str] = []  # noqa: RUF012 (pydantic copies it)


class TrainingResource(dg.ConfigurableResource):
    """Where training runs.

    Args:
        where: ``process`` trains inside the run; ``subprocess`` starts the training entry point through Dagster
            Pipes, as a cluster's launcher would.
    """

    where: Literal["process", "subprocess"] = "process"
