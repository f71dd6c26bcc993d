"""The chunked form of Mamba-2 against its definition, its cache against the whole, and what it may see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx.model.ssm import Bidirectional, Block, Mamba2, RMSNorm, ssd, ssd_scan

SIZES = st.tuples(st.integers(1, 33), st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


def _inputs(steps: int, heads: int, width: int, state: int, seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x, dt = draw(2, steps, heads, width), torch.nn.functional.softplus(draw(2, steps, heads))
    a, b, c = -torch.exp(draw(heads)), draw(2, steps, state), draw(2, steps, state)
    return [part.requires_grad_() for part in (x, dt.detach(), a.detach(), b, c, draw(2, heads, state, width))]


def _mixer(**changes: int) -> Mamba2:
    torch.manual_seed(0)
    return Mamba2(16, **{"state": 8, "head_width": 8, "expand": 2, "conv": 4, "chunk": 5, **changes}).double().eval()


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_chunks_equal_the_recurrence_in_value_and_gradient(sizes: tuple[int, ...], seed: int) -> None:
    steps, chunk, heads, width, state = sizes
    inputs = _inputs(steps, heads, width, state, seed)
    by_step, end = ssd_scan(*inputs)
    by_chunk, chunk_end = ssd(*inputs[:5], chunk=chunk, state_bhnq=inputs[5])
    torch.testing.assert_close(by_chunk, by_step, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(chunk_end, end, rtol=1e-10, atol=1e-10)
    weigh = torch.randn(by_step.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = torch.autograd.grad((by_step * weigh).sum() + end.sum(), inputs)
    got = torch.autograd.grad((by_chunk * weigh).sum() + chunk_end.sum(), inputs)
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_known_answer_of_a_leaky_sum() -> None:
    ones = torch.ones(1, 3, 1, dtype=torch.float64)
    x = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64).view(1, 3, 1, 1)
    half = torch.log(torch.tensor([0.5], dtype=torch.float64))
    y, state = ssd(x, ones, half, ones, ones, chunk=2)
    assert y.flatten().tolist() == pytest.approx([1.0, 0.5, 2.25])
    assert state.item() == pytest.approx(2.25)


def test_two_halves_with_the_state_between_equal_the_whole() -> None:
    x, dt, a, b, c, start = _inputs(20, 2, 3, 4, seed=1)
    whole, end = ssd(x, dt, a, b, c, chunk=6, state_bhnq=start)
    first, middle = ssd(x[:, :9], dt[:, :9], a, b[:, :9], c[:, :9], chunk=6, state_bhnq=start)
    second, last = ssd(x[:, 9:], dt[:, 9:], a, b[:, 9:], c[:, 9:], chunk=6, state_bhnq=middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(last, end, rtol=1e-10, atol=1e-12)


def test_large_steps_neither_overflow_nor_give_nan() -> None:
    x, dt, a, b, c, _ = (part.float().detach() for part in _inputs(64, 2, 3, 4, seed=2))
    y, _ = ssd(x, dt * 1e3, a * 1e3, b, c, chunk=32)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_streaming_equals_the_batch(chunk: int) -> None:
    mixer = _mixer(chunk=chunk)
    x = torch.randn(3, 17, 16, dtype=torch.float64)
    whole, state, out = mixer(x), mixer.start(3), []
    for t in range(17):
        y, state = mixer.step(x[:, t], state)
        out.append(y)
    torch.testing.assert_close(torch.stack(out, dim=1), whole, rtol=1e-9, atol=1e-11)


def test_block_streams_in_evaluation_mode() -> None:
    block = Block(_mixer(), 16, 0.5).double().eval()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    state, out = block.mixer.start(2), []  # type: ignore[union-attr]
    for t in range(9):
        y, state = block.step(x[:, t], state)
        out.append(y)
    torch.testing.assert_close(torch.stack(out, dim=1), block(x), rtol=1e-9, atol=1e-11)


def test_the_future_changes_no_bit_of_the_past() -> None:
    mixer = _mixer().float()
    x = torch.randn(2, 23, 16)
    other = x.clone()
    other[:, 11:] = torch.randn(2, 12, 16)
    assert torch.equal(mixer(x)[:, :11], mixer(other)[:, :11])
    assert not torch.equal(mixer(x)[:, 11:], mixer(other)[:, 11:])


def test_two_ways_see_the_future_and_refuse_to_stream() -> None:
    both = Bidirectional(_mixer(), _mixer(conv=3)).double()
    x = torch.randn(1, 8, 16, dtype=torch.float64)
    other = x.clone()
    other[:, 7] += 1
    assert not torch.equal(both(x)[:, 0], both(other)[:, 0])
    back = both(x) - both.ahead(x)
    torch.testing.assert_close(back.flip(1), both.back(x.flip(1)))
    with pytest.raises(TypeError, match="cannot stream"):
        Block(both, 16, 0.0).step(x[:, 0], both.ahead.start(1))


def test_parameters_have_the_names_and_shapes_of_mamba_ssm() -> None:
    shapes = {name: tuple(p.shape) for name, p in _mixer().named_parameters()}
    assert shapes == {
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "in_proj.weight": (2 * 32 + 2 * 8 + 4, 16),
        "conv1d.weight": (48, 1, 4),
        "conv1d.bias": (48,),
        "norm.weight": (32,),
        "out_proj.weight": (16, 32),
    }


def test_step_sizes_start_in_the_stated_range() -> None:
    step = torch.nn.functional.softplus(_mixer(head_width=1).dt_bias)
    assert step.min() >= 0.99e-3
    assert step.max() <= 1.01e-1


def test_gate_multiplies_before_the_norm() -> None:
    norm = RMSNorm(4).double()
    x, gate = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    gated = x * gate * torch.sigmoid(gate)
    expected = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x, gate), expected)
