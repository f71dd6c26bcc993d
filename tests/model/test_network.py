"""The whole network: shapes, masks, time's arrow, sites and edits, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neurofmx.errors import ConfigError
from neurofmx.model.config import HeadSpec, ModelConfig
from neurofmx.model.network import GROUPS, NeuroFMX
from neurofmx.types import Batch, Target, Tokens

CONFIG = ModelConfig(
    width=16, channel_width=8, latents=2, blocks=2, state=4, head_width=8, chunk=4, lags=(-1, 0), dropout=0.0
)
HEADS = {"move": HeadSpec(kind="continuous", dim=2), "pick.one": HeadSpec(kind="class", dim=3)}
FIELDS = {"spikes": 1, "lfp": 2}


def _model(**changes: object) -> NeuroFMX:
    torch.manual_seed(0)
    model = NeuroFMX(
        replace(CONFIG, **changes),  # type: ignore[arg-type]
        fields=FIELDS,
        n_channels=9,
        heads=HEADS,
        n_recordings=2,
    )
    for head in model.heads:  # new heads are zero, which would hide what reaches them
        torch.nn.init.normal_(head.out.weight)  # type: ignore[union-attr,arg-type]
    return model.eval()


def _tokens(channels: list[int], fields: int, seed: int, steps: int = 10) -> Tokens:
    random = torch.Generator().manual_seed(seed)
    return Tokens(
        values=torch.randn(3, steps, len(channels), fields, generator=random),
        time_s=torch.arange(steps, dtype=torch.float64).expand(3, -1) * 0.05,
        dt_s=0.05,
        mask=torch.rand(3, steps, len(channels), generator=random) > 0.2,
        channel=torch.tensor(channels).expand(3, -1),
    )


def _batch(*modalities: str) -> Batch:
    streams = {"spikes": _tokens([0, 1, 2, 3, 4], 1, seed=1), "lfp": _tokens([5, 6, 7], 2, seed=2)}
    target = Target(
        values=torch.zeros(3, 10, 2), mask=torch.ones(3, 10, dtype=torch.bool), kind="continuous", names=("x", "y")
    )
    return Batch(
        streams={m: streams[m] for m in modalities or streams},
        targets={"move": target},
        recording=torch.tensor([0, 0, 1]),
    )


def _changed(batch: Batch, modality: str, **fields: torch.Tensor) -> Batch:
    return replace(batch, streams={**batch.streams, modality: replace(batch.streams[modality], **fields)})


@torch.no_grad()
def test_shapes_are_the_stated_ones() -> None:
    model, batch = _model(), _batch()
    out = model(batch, "move")
    assert out.decode.shape == out.linear.shape == (3, 10, 2)
    assert out.latents.shape == (3, 10, 16)
    assert {m: tuple(r.shape) for m, r in out.recon.items()} == {"spikes": (3, 10, 5, 1), "lfp": (3, 10, 3, 2)}
    assert model(batch, "pick.one").decode.shape == (3, 3)


@torch.no_grad()
def test_what_masks_mark_false_changes_no_bit() -> None:
    model, batch = _model(), _batch()
    values = batch.streams["spikes"].values.clone()
    values[~batch.streams["spikes"].mask] = torch.nan
    for task in HEADS:
        clean, dirty = model(batch, task), model(_changed(batch, "spikes", values=values), task)
        assert torch.equal(clean.decode, dirty.decode)
        assert torch.equal(clean.latents, dirty.latents)
        assert all(torch.equal(clean.recon[m], dirty.recon[m]) for m in FIELDS)


@torch.no_grad()
def test_order_of_channels_changes_no_prediction() -> None:
    model, batch = _model(), _batch()
    spikes, order = batch.streams["spikes"], torch.tensor([4, 2, 0, 3, 1])
    moved = _changed(
        batch,
        "spikes",
        values=spikes.values[:, :, order],
        mask=spikes.mask[:, :, order],
        channel=spikes.channel[:, order],
    )
    one, other = model(batch, "move"), model(moved, "move")
    torch.testing.assert_close(other.latents, one.latents, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.decode, one.decode, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.recon["spikes"], one.recon["spikes"][:, :, order], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_padding_channels_change_no_prediction() -> None:
    model, batch = _model(), _batch()
    spikes = batch.streams["spikes"]
    padded = _changed(
        batch,
        "spikes",
        values=torch.cat([spikes.values, torch.full((3, 10, 2, 1), 7.0)], dim=2),
        mask=torch.cat([spikes.mask, torch.ones(3, 10, 2, dtype=torch.bool)], dim=2),
        channel=torch.cat([spikes.channel, torch.full((3, 2), -1)], dim=1),
    )
    torch.testing.assert_close(model(padded, "move").decode, model(batch, "move").decode, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_causal_network_reads_no_future_bit() -> None:
    model, batch = _model(), _batch()
    values = batch.streams["spikes"].values.clone()
    values[:, 6:] = torch.randn(3, 4, 5, 1)
    one, other = model(batch, "move"), model(_changed(batch, "spikes", values=values), "move")
    assert torch.equal(one.decode[:, :6], other.decode[:, :6])
    assert torch.equal(one.latents[:, :6], other.latents[:, :6])
    assert not torch.equal(one.decode[:, 6:], other.decode[:, 6:])


@torch.no_grad()
def test_a_network_of_both_directions_reads_the_future() -> None:
    model, batch = _model(bidirectional=True, lags=(0, 1)), _batch()
    values = batch.streams["spikes"].values.clone()
    values[:, 9] += 5
    assert not torch.equal(
        model(batch, "move").latents[:, 0], model(_changed(batch, "spikes", values=values), "move").latents[:, 0]
    )


@torch.no_grad()
@pytest.mark.parametrize("modality", ["spikes", "lfp"])
def test_either_modality_may_be_absent(modality: str) -> None:
    out = _model()(_batch(modality), "move")
    assert set(out.recon) == {modality}
    assert torch.isfinite(out.decode).all()


@torch.no_grad()
def test_an_all_masked_modality_is_as_good_as_none_for_the_linear_path() -> None:
    model, batch = _model(), _batch()
    silent = _changed(batch, "lfp", mask=batch.streams["lfp"].mask & False)
    assert torch.equal(model(silent, "move").linear, model(_batch("spikes"), "move").linear)


@torch.no_grad()
def test_a_new_network_is_its_linear_path() -> None:
    torch.manual_seed(0)
    model = NeuroFMX(CONFIG, fields=FIELDS, n_channels=9, heads=HEADS, n_recordings=2).eval()
    model.linear[0].weight.copy_(torch.randn(model.linear[0].weight.shape))  # type: ignore[union-attr,operator,arg-type]
    out = model(_batch(), "move")
    assert torch.equal(out.decode, out.linear)
    assert out.linear.abs().sum() > 0


def test_every_parameter_gets_a_gradient() -> None:
    model = _model().train()
    loss = torch.zeros(())
    for task in HEADS:
        out = model(_batch(), task)
        loss = loss + out.decode.square().sum() + sum(r.square().sum() for r in out.recon.values())
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_groups_part_the_parameters() -> None:
    model = _model()
    held = [id(p) for name in GROUPS for p in model.group(name)]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}
    with pytest.raises(ConfigError, match="parameter group"):
        model.group("tail")


@torch.no_grad()
def test_sites_are_read_where_edits_write() -> None:
    model, batch = _model(), _batch()
    features = model.features(batch)
    assert tuple(features) == model.sites() == ("population", "block.0", "block.1", "fusion")
    assert torch.equal(features["fusion"], model(batch, "move").latents)
    for site in model.sites():
        same = model(batch, "move", edits={site: lambda x: x})
        gone = model(batch, "move", edits={site: torch.zeros_like})
        assert torch.equal(same.decode, model(batch, "move").decode)
        assert not torch.equal(gone.decode, same.decode)
    flat = model(batch, "move", edits={"fusion": torch.zeros_like})
    assert torch.equal(flat.latents, torch.zeros(3, 10, 16))


@torch.no_grad()
def test_edits_before_fusion_see_one_modality_at_a_time() -> None:
    seen: list[tuple[int, ...]] = []
    _model()(_batch(), "move", edits={"block.0": lambda x: seen.append(tuple(x.shape)) or x})
    assert seen == [(3, 10, 16)] * 2


def test_unknown_names_are_refused() -> None:
    model, batch = _model(), _batch()
    with pytest.raises(ConfigError, match=r"expected one of \['move', 'pick.one'\]"):
        model(batch, "fly")
    with pytest.raises(ConfigError, match="eyes"):
        model(replace(batch, streams={"eyes": batch.streams["lfp"]}), "move")
    with pytest.raises(ConfigError, match="block.9"):
        model(batch, "move", edits={"block.9": lambda x: x})
    with pytest.raises(ConfigError, match="expected some"):
        NeuroFMX(CONFIG, fields={}, n_channels=1, heads=HEADS)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="a divisor of 128"):
        ModelConfig(head_width=48)
    with pytest.raises(ConfigError, match="no future bin"):
        ModelConfig(lags=(0, 1))
