"""Fusion of modalities: one passes unchanged, an absent one counts for nothing, the future is not read."""

from __future__ import annotations

import torch

from neurofmx.model.fusion import CrossAttention, Fusion


def _fusion(past: int = 3) -> Fusion:
    torch.manual_seed(0)
    return Fusion(8, latents=3, past=past).double().eval()


def _tokens(modalities: int = 2, steps: int = 9) -> torch.Tensor:
    return torch.randn(modalities, 2, steps, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _real(modalities: int = 2, steps: int = 9) -> torch.Tensor:
    return torch.ones(modalities, 2, steps, dtype=torch.bool)


def test_one_modality_passes_unchanged() -> None:
    tokens = _tokens(1)
    assert torch.equal(_fusion()(tokens, _real(1)), tokens[0])


def test_what_is_absent_changes_no_bit() -> None:
    tokens, real = _tokens(), _real()
    real[1, :, 4:] = False
    other = tokens.clone()
    other[1, :, 4:] = 99.0
    assert torch.equal(_fusion()(tokens, real), _fusion()(other, real))


def test_bins_without_any_modality_are_finite() -> None:
    real = _real()
    real[:, 0] = False
    out = _fusion()(_tokens(), real)
    assert torch.isfinite(out).all()


def test_order_of_modalities_is_free() -> None:
    tokens, real = _tokens(3), _real(3)
    real[2, :, :5] = False
    order = [2, 0, 1]
    torch.testing.assert_close(_fusion()(tokens[order], real[order]), _fusion()(tokens, real), rtol=1e-10, atol=1e-12)


def test_only_a_bounded_past_is_read() -> None:
    fusion, tokens = _fusion(past=3), _tokens()
    future, old = tokens.clone(), tokens.clone()
    future[:, :, 6:] += 1
    old[:, :, :3] += 1
    out = fusion(tokens, _real())
    assert torch.equal(fusion(future, _real())[:, :6], out[:, :6])
    torch.testing.assert_close(fusion(old, _real())[:, 5:], out[:, 5:], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(fusion(old, _real())[:, 4], out[:, 4])


def test_cross_attention_is_zero_where_no_key_is_real() -> None:
    torch.manual_seed(0)
    attend = CrossAttention(8)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    query, key = torch.randn(2, 2, 8), torch.randn(2, 3, 8)
    out = attend(query, key, mask)
    assert torch.equal(out[1], torch.zeros(2, 8))
    torch.testing.assert_close(out[:1], attend(query[:1], key[:1, [0, 2]]))
