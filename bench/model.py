"""The backbone on the CPU: the chunked state-space form against its sequential scan and against attention."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from bench.figure import Figure, at_least, in_turn
from neurofmx.model.ssm import ssd, ssd_scan

HEADS, WIDTH, STATE = 4, 64, 64


def _inputs(length: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (
        torch.randn(1, length, HEADS, WIDTH),
        torch.rand(1, length, HEADS) * 0.1,
        -torch.rand(HEADS) - 0.1,
        torch.randn(1, length, STATE),
        torch.randn(1, length, STATE),
    )


def figures() -> list[Figure]:
    """Batch 1, 4 heads of 64, state 64, float32, one thread, forward."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    try:
        with torch.inference_mode():
            for length, goal in ((100, 3.0), (512, 5.0), (2048, 5.0)):
                x = _inputs(length)
                scan, chunked, ratio = in_turn(lambda x=x: ssd_scan(*x), lambda x=x: ssd(*x, chunk=64))
                what = f"sequential scan over chunked SSD, {length} steps"
                found.append(at_least(what, ratio, "x", goal, scan_ms=scan * 1e3, ssd_ms=chunked * 1e3))
            for length, goal in ((2048, 1.5), (8192, 5.0)):
                x, q = _inputs(length), torch.randn(1, 2, length, 64)
                attention, chunked, ratio = in_turn(
                    lambda q=q: scaled_dot_product_attention(q, q, q, is_causal=True), lambda x=x: ssd(*x, chunk=64)
                )
                what = f"causal attention (2 heads) over chunked SSD, {length} steps"
                found.append(at_least(what, ratio, "x", goal, attention_ms=attention * 1e3, ssd_ms=chunked * 1e3))
    finally:
        torch.set_num_threads(threads)
    return found
