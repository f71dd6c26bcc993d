"""Channels in any order and number; nothing that is masked reaches a token."""

from __future__ import annotations

import pytest
import torch

from neurofmx.errors import ConfigError
from neurofmx.model.embeddings import ChannelTable, over_channels, real_values, shared_rows
from neurofmx.model.population import Population


def _population(latents: int = 3, fields: int = 2) -> Population:
    torch.manual_seed(0)
    return Population(fields, channel_width=6, width=8, latents=latents).double()


def _case(channels: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 5, channels, 2, generator=random, dtype=torch.float64)
    mask = torch.rand(2, 5, channels, generator=random) > 0.3
    vectors = torch.randn(channels, 6, generator=random, dtype=torch.float64)
    return values * mask[..., None], mask, vectors


@pytest.mark.parametrize("latents", [0, 3])
def test_order_of_channels_is_free(latents: int) -> None:
    population, (values, mask, vectors) = _population(latents), _case()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    there = population(values[:, :, order], mask[:, :, order], vectors[order])
    torch.testing.assert_close(there, population(values, mask, vectors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("latents", [0, 3])
def test_padding_channels_change_no_token(latents: int) -> None:
    population, (values, mask, vectors) = _population(latents), _case()
    padded = population(
        torch.cat([values, torch.zeros(2, 5, 4, 2, dtype=torch.float64)], dim=2),
        torch.cat([mask, torch.zeros(2, 5, 4, dtype=torch.bool)], dim=2),
        torch.cat([vectors, torch.randn(4, 6, dtype=torch.float64)]),
    )
    torch.testing.assert_close(padded, population(values, mask, vectors), rtol=1e-12, atol=1e-12)


def test_one_row_of_channels_equals_a_row_for_each_window() -> None:
    population, (values, mask, vectors) = _population(), _case()
    expanded = population(values, mask, vectors.expand(2, -1, -1))
    torch.testing.assert_close(expanded, population(values, mask, vectors), rtol=1e-12, atol=1e-12)


def test_no_real_channel_leaves_the_modality_alone() -> None:
    population, (values, mask, vectors) = _population(), _case()
    silent = population(values * 0, mask & False, vectors)
    expected = (population.read_in.bias + population.modality).expand(2, 5, 8)
    torch.testing.assert_close(silent, expected)
    assert torch.isfinite(silent).all()


def test_read_in_is_the_sum_over_channels() -> None:
    population, (values, mask, vectors) = _population(0), _case()
    count = mask.sum(-1).clamp(min=1).double()
    summed = torch.einsum("btcp,ce->btpe", values, vectors) / count.sqrt()[..., None, None]
    expected = population.read_in(summed.flatten(-2)) + population.modality
    torch.testing.assert_close(population(values, mask, vectors), expected)


def test_padding_rows_have_no_vector() -> None:
    table = ChannelTable(4, 3)
    found = table(torch.tensor([[0, -1, 3], [2, 2, -1]]))
    assert found.shape == (2, 3, 3)
    assert torch.equal(found[0, 1], torch.zeros(3))
    assert torch.equal(found[1, 0], table.weight[2])


def test_a_shared_row_is_gathered_once() -> None:
    row = torch.tensor([3, 1, 2])
    assert shared_rows(row.expand(5, -1)).shape == (3,)
    assert shared_rows(row[None]).shape == (3,)
    assert shared_rows(row.repeat(5, 1)).shape == (5, 3)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_sum_over_channels_matches_einsum(shape: tuple[int, ...]) -> None:
    values, vectors = torch.randn(2, 4, 6, 5), torch.randn(*shape)
    letters = "btpc,ce->btpe" if len(shape) == 2 else "btpc,bce->btpe"
    torch.testing.assert_close(over_channels(values, vectors), torch.einsum(letters, values, vectors))


def test_masked_nan_becomes_zero_and_padding_is_masked() -> None:
    values, mask = torch.full((1, 2, 2, 1), torch.nan), torch.tensor([[[False, True], [False, False]]])
    values[0, 0, 1] = 5.0
    clean, real = real_values(values, mask, torch.tensor([[0, -1]]), rows=1)
    assert not real.any()
    assert torch.equal(clean, torch.zeros(1, 2, 2, 1))


def test_a_row_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 7; expected less than 7"):
        real_values(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool), torch.tensor([[7]]), rows=7)
