"""Mamba-2: the state-space dual form in plain PyTorch, its sequential reference, and the block around it.

Dao and Gu, "Transformers are SSMs", ICML 2024. Per head the state S (N, Q) follows

    S_t = exp(dt_t a) S_{t-1} + dt_t b_t x_t^T,      y_t = c_t S_t + d x_t

Legend: B batch, T time, H heads, Q head width, N state, K chunk length, J number of chunks, D width, I inner width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def ssd_scan(
    x_bthq: Tensor, dt_bth: Tensor, a_h: Tensor, b_btn: Tensor, c_btn: Tensor, state_bhnq: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Runs the recurrence one step at a time: the definition that `ssd` must equal.

    Args:
        x_bthq: inputs (B, T, H, Q).
        dt_bth: positive step sizes (B, T, H).
        a_h: negative decay rates (H,).
        b_btn: input directions (B, T, N), shared by the heads.
        c_btn: output directions (B, T, N).
        state_bhnq: state before the first step, zero if None.

    Returns:
        Outputs (B, T, H, Q) and the state after the last step (B, H, N, Q).
    """
    batch, steps, heads, width = x_bthq.shape
    state = x_bthq.new_zeros(batch, heads, b_btn.shape[-1], width) if state_bhnq is None else state_bhnq
    outputs = []
    for t in range(steps):
        state, y_bhq = ssd_step(state, x_bthq[:, t], dt_bth[:, t], a_h, b_btn[:, t], c_btn[:, t])
        outputs.append(y_bhq)
    return torch.stack(outputs, dim=1), state


def ssd_step(
    state_bhnq: Tensor, x_bhq: Tensor, dt_bh: Tensor, a_h: Tensor, b_bn: Tensor, c_bn: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the recurrence, for streaming.

    Returns:
        The new state (B, H, N, Q) and the output (B, H, Q).
    """
    decay_bh = torch.exp(dt_bh * a_h)
    update = b_bn[:, None, :, None] * (dt_bh[..., None] * x_bhq)[:, :, None, :]
    state = state_bhnq * decay_bh[..., None, None] + update
    return state, torch.einsum("bn,bhnq->bhq", c_bn, state)


def ssd(
    x_bthq: Tensor,
    dt_bth: Tensor,
    a_h: Tensor,
    b_btn: Tensor,
    c_btn: Tensor,
    *,
    chunk: int,
    state_bhnq: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same recurrence as matrix products: quadratic inside chunks, a short scan between them.

    Decays enter as exp of differences of cumulative sums that are never positive, so nothing overflows.

    Args:
        x_bthq: inputs (B, T, H, Q).
        dt_bth: positive step sizes (B, T, H).
        a_h: negative decay rates (H,).
        b_btn: input directions (B, T, N), shared by the heads.
        c_btn: output directions (B, T, N).
        chunk: K; any length T is right, the last chunk is padded with steps of size 0.
        state_bhnq: state before the first step, zero if None.

    Returns:
        Outputs (B, T, H, Q) and the state after the last step (B, H, N, Q).
    """
    batch, steps, heads, width = x_bthq.shape
    chunk = min(chunk, steps)
    pad = -steps % chunk
    if pad:  # a step of size 0 neither decays the state nor adds to it
        x_bthq, dt_bth = F.pad(x_bthq, (0, 0, 0, 0, 0, pad)), F.pad(dt_bth, (0, 0, 0, pad))
        b_btn, c_btn = F.pad(b_btn, (0, 0, 0, pad)), F.pad(c_btn, (0, 0, 0, pad))
    count = (steps + pad) // chunk
    u = (x_bthq * dt_bth[..., None]).view(batch, count, chunk, heads, width).permute(0, 1, 3, 2, 4)  # (B, J, H, K, Q)
    log_decay = (dt_bth * a_h).view(batch, count, chunk, heads).permute(0, 1, 3, 2)  # (B, J, H, K)
    b, c = b_btn.view(batch, count, chunk, -1), c_btn.view(batch, count, chunk, -1)  # (B, J, K, N)
    total = torch.cumsum(log_decay, dim=-1)

    # inside a chunk: y_i = sum over j <= i of exp(total_i - total_j) (c_i . b_j) u_j
    gap = total[..., :, None] - total[..., None, :]
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=x_bthq.device).triu(1)
    weights = torch.exp(gap.masked_fill(future, -torch.inf)) * (c @ b.transpose(-1, -2))[:, :, None]
    y = weights @ u

    # what each chunk adds to the state by its end, and the scan between chunks
    to_end = torch.exp(total[..., -1:] - total)
    added = torch.einsum("bjkn,bjhkq->bjhnq", b, u * to_end[..., None])
    chunk_decay = torch.exp(total[..., -1])
    state = x_bthq.new_zeros(batch, heads, b.shape[-1], width) if state_bhnq is None else state_bhnq
    before = []
    for j in range(count):
        before.append(state)
        state = state * chunk_decay[:, j, :, None, None] + added[:, j]
    entering = torch.stack(before, dim=1)  # (B, J, H, N, Q)
    y = y + torch.einsum("bjkn,bjhnq->bjhkq", c, entering) * torch.exp(total)[..., None]
    y = y.permute(0, 1, 3, 2, 4).reshape(batch, count * chunk, heads, width)
    return y[:, :steps], state


class RMSNorm(nn.Module):
    """Divides by the root mean square over the last axis; a gate, if given, multiplies first (Mamba-2's order)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        if gate is not None:
            x = x * F.silu(gate)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


@dataclass(frozen=True, kw_only=True)
class MambaState:
    """What a block carries from one bin to the next.

    Args:
        conv: the last inputs of the convolution (B, conv - 1, I + 2N).
        ssm: (B, H, N, Q).
    """

    conv: Tensor
    ssm: Tensor


class Mamba2(nn.Module):
    """One Mamba-2 mixer: in-projection, causal convolution, SSD, gated RMS norm, out-projection.

    Parameter names are those of ``mamba_ssm.Mamba2`` with one group, so that weights can move between the two.

    Args:
        width: D.
        state: N.
        head_width: Q.
        expand: I / D.
        conv: taps of the convolution, at least 2.
        chunk: bins of one SSD chunk.
    """

    def __init__(self, width: int, *, state: int, head_width: int, expand: int, conv: int, chunk: int) -> None:
        super().__init__()
        self.inner, self.state, self.head_width, self.taps, self.chunk = expand * width, state, head_width, conv, chunk
        self.heads = self.inner // head_width
        mixed = self.inner + 2 * state
        self.in_proj = nn.Linear(width, self.inner + mixed + self.heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, conv, groups=mixed)
        # steps start log-uniform in [1e-3, 1e-1], as in the paper; dt_bias is their inverse softplus
        step = torch.exp(torch.rand(self.heads) * 4.6051702 - 6.9077553)
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_log = nn.Parameter(torch.log(1 + 15 * torch.rand(self.heads)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), each bin from itself and the past."""
        gate, mixed, dt = self._project(x_btd)
        mixed = F.silu(self._convolve(mixed))
        x, b, c = mixed.split([self.inner, self.state, self.state], dim=-1)
        x = x.unflatten(-1, (self.heads, self.head_width))
        y, _ = ssd(x, dt, -torch.exp(self.A_log), b, c, chunk=self.chunk)
        return self._finish(y, x, gate)

    def _convolve(self, x_btc: Tensor) -> Tensor:
        """The causal depthwise convolution as shifted sums: on a CPU a little faster than conv1d."""
        padded, steps = F.pad(x_btc, (0, 0, self.taps - 1, 0)), x_btc.shape[1]
        shifted = [padded[:, tap : tap + steps] * self.conv1d.weight[:, 0, tap] for tap in range(self.taps)]
        return sum(shifted, self.conv1d.bias)  # type: ignore[return-value, arg-type]

    def start(self, batch: int) -> MambaState:
        """The state before the first bin."""
        zeros = self.in_proj.weight.new_zeros
        return MambaState(
            conv=zeros(batch, self.taps - 1, self.inner + 2 * self.state),
            ssm=zeros(batch, self.heads, self.state, self.head_width),
        )

    def step(self, x_bd: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One bin (B, D) -> (B, D) and the new state; over a sequence it equals `forward`."""
        gate, mixed, dt = self._project(x_bd)
        window = torch.cat([state.conv, mixed[:, None]], dim=1)
        mixed = F.silu((window * self.conv1d.weight[:, 0].T).sum(1) + self.conv1d.bias)
        x, b, c = mixed.split([self.inner, self.state, self.state], dim=-1)
        x = x.unflatten(-1, (self.heads, self.head_width))
        ssm, y = ssd_step(state.ssm, x, dt, -torch.exp(self.A_log), b, c)
        return self._finish(y, x, gate), MambaState(conv=window[:, 1:], ssm=ssm)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate, mixed, dt = self.in_proj(x).split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)
        return gate, mixed, F.softplus(dt + self.dt_bias)

    def _finish(self, y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        return self.out_proj(self.norm((y + x * self.D[:, None]).flatten(-2), gate))


class Bidirectional(nn.Module):
    """The sum of one mixer that reads forwards and one that reads backwards; offline only."""

    def __init__(self, ahead: Mamba2, back: Mamba2) -> None:
        super().__init__()
        self.ahead, self.back = ahead, back

    def forward(self, x_btd: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), each bin from the whole window."""
        return self.ahead(x_btd) + self.back(x_btd.flip(1)).flip(1)


class Block(nn.Module):
    """Residual block: x + dropout(mixer(norm(x)))."""

    def __init__(self, mixer: Mamba2 | Bidirectional, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.mixer, self.dropout = RMSNorm(width), mixer, nn.Dropout(dropout)

    def forward(self, x_btd: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return x_btd + self.dropout(self.mixer(self.norm(x_btd)))

    def step(self, x_bd: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One bin (B, D) -> (B, D) and the new state, in evaluation mode.

        Raises:
            TypeError: the block reads backwards, so it cannot stream.
        """
        if not isinstance(self.mixer, Mamba2):
            raise TypeError("a bidirectional block needs the whole window: it cannot stream")
        y_bd, state = self.mixer.step(self.norm(x_bd), state)
        return x_bd + y_bd, state
