"""Heads start at zero; the linear path is plain linear regression laid out by channel, lag and field."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurofmx.model.heads import BinHead, LinearPath, Reconstruction, WindowHead, shifted


def _real(steps: int = 6) -> torch.Tensor:
    return torch.ones(2, steps, dtype=torch.bool)


def test_new_heads_say_nothing() -> None:
    latents = torch.randn(2, 6, 8)
    assert torch.equal(BinHead(8, 3)(latents, _real()), torch.zeros(2, 6, 3))
    assert torch.equal(WindowHead(8, 4)(latents, _real()), torch.zeros(2, 4))


def test_a_window_is_told_from_its_real_bins_alone() -> None:
    torch.manual_seed(0)
    head = WindowHead(8, 4)
    torch.nn.init.normal_(head.out.weight)
    latents, real = torch.randn(2, 6, 8), _real()
    real[:, 4:] = False
    other = latents.clone()
    other[:, 4:] = torch.randn(2, 2, 8)
    assert torch.equal(head(latents, real), head(other, real))
    torch.testing.assert_close(head(latents, real), head(latents[:, :4], _real(4)))


def test_a_window_without_real_bins_gives_the_bias() -> None:
    head = WindowHead(8, 4)
    torch.nn.init.normal_(head.out.weight)
    torch.nn.init.normal_(head.out.bias)
    out = head(torch.randn(2, 6, 8), _real() & False)
    assert torch.equal(out, head.out.bias.expand(2, 4))


def test_reconstruction_weighs_latents_by_channel() -> None:
    torch.manual_seed(0)
    module = Reconstruction(8, channel_width=5, fields=2)
    latents, vectors = torch.randn(2, 6, 8), torch.randn(3, 5)
    out = module(latents, vectors)
    expected = torch.einsum("btpe,ce->btcp", module.out(latents).view(2, 6, 2, 5), vectors)
    assert out.shape == (2, 6, 3, 2)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(module(latents, vectors.expand(2, -1, -1)), expected)


@pytest.mark.parametrize("by", [-2, -1, 0, 1, 3])
def test_shift_moves_and_zero_enters(by: int) -> None:
    values = torch.arange(1.0, 6).view(1, 5, 1)
    row = [0.0] * 5
    for t in range(5):
        if 0 <= t - by < 5:
            row[t] = float(t - by + 1)
    assert shifted(values, by).flatten().tolist() == row


def _path(per_bin: bool) -> LinearPath:
    path = LinearPath(6, 3, lags=(-2, 0, 1), fields=2, dim=4, per_bin=per_bin)
    path.weight.copy_(torch.randn(path.weight.shape, generator=torch.Generator().manual_seed(0)))
    path.bias.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
    return path


def test_linear_path_equals_a_sum_over_channels_lags_and_fields() -> None:
    path, values = _path(per_bin=True), np.random.default_rng(0).standard_normal((2, 7, 3, 2)).astype(np.float32)
    rows = torch.tensor([4, 0, 5])
    stream = (torch.from_numpy(values), torch.ones(2, 7, 3, dtype=torch.bool), rows.expand(2, -1))
    got = path([stream], torch.tensor([2, 0]))
    weight, expected = path.weight.numpy()[rows.numpy()], path.bias.numpy()[[2, 0]][:, None].repeat(7, axis=1)
    for t in range(7):
        for k, lag in enumerate(path.lags):
            if 0 <= t + lag < 7:
                expected[:, t] += np.einsum("bcp,cpd->bd", values[:, t + lag], weight[:, k])
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_linear_path_of_windows_reads_the_mean_over_real_bins() -> None:
    path = _path(per_bin=False)
    assert path.lags == (0,)
    values, mask = torch.randn(2, 7, 3, 1), torch.rand(2, 7, 3, generator=torch.Generator().manual_seed(0)) > 0.4
    values = values * mask[..., None]
    rows = torch.tensor([1, 2, 3])
    got = path([(values, mask, rows.expand(2, -1))], torch.tensor([1, 1]))
    mean = values.sum(1)[..., 0] / mask.sum(1).clamp(min=1)
    torch.testing.assert_close(got, path.bias[1] + mean @ path.weight[rows, 0, 0])


def test_several_modalities_add_up() -> None:
    path = _path(per_bin=True)
    real = torch.ones(1, 5, 1, dtype=torch.bool)
    one = (torch.randn(1, 5, 1, 2), real, torch.tensor([[0]]))
    two = (torch.randn(1, 5, 1, 1), real, torch.tensor([[3]]))
    zero = torch.tensor([0])
    both = path([one, two], zero) - path.bias[0]
    torch.testing.assert_close(both, path([one], zero) + path([two], zero) - 2 * path.bias[0])


def test_weights_are_saved_and_not_learned() -> None:
    path = _path(per_bin=True)
    assert list(path.parameters()) == []
    assert set(path.state_dict()) == {"weight", "bias"}
