"""Compression of something that is no radiance field: a host of its own, on two axes."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch import nn

from shacira_nerfstudio.codec import PackedScene, decode_scene, encode_scene
from shacira_nerfstudio.compression import background_refresh
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.compression.options import (
    CompressionOptions,
    QuantizerOptions,
    RateOptions,
    ScheduleOptions,
)
from shacira_nerfstudio.compression.pack import quantize_weight
from shacira_nerfstudio.compression.rate_steering import RateSteering
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.rate_models import make_rate_model

NUM_STEPS, RDO_STEP = 40, 32
GRID = GridSpec.create(
    num_dims=2, num_levels=3, base_res=(4, 6), max_res=(16, 24), log2_hashmap_size=9
)


NOISE = torch.rand(12, 18, 3, generator=torch.Generator().manual_seed(5))


class Picture(nn.Module):
    """Colours of noise, from latents and one linear layer. The smallest host there is."""

    def __init__(self, options, backend):
        super().__init__()
        torch.manual_seed(0)
        quantizer = get_quantizer(options.quantizer.mode)
        density = FactorizedEntropyModel(GRID.num_levels, 2)
        self.encoding = LatentHashEncoding(
            GRID,
            backend,
            latent_decoder=LatentDecoder(GRID.num_levels, 2, 4),
            rate_model=make_rate_model(options.rate.model, density, quantizer),
            quantizer=quantizer,
        )
        self.layer = nn.Linear(4 * GRID.num_levels, 3)
        self.quantize_weights = False
        self.compressor = Compressor(options, self, self.pack)
        self.compressor.attach(NUM_STEPS, pack=self.pack, batches=self.batch, psnr=self.psnr)
        self.seen = []

    def colors(self, x):
        layer = self.encoding.latent_decoder.fold(self.layer.weight, self.layer.bias)
        return nn.functional.linear(self.encoding(x).flatten(1), *layer).sigmoid()

    @staticmethod
    def truth(x):
        rows, columns = (x * torch.tensor([12.0, 18.0])).long().clamp_max(17).unbind(1)
        return NOISE[rows.clamp_max(11), columns]

    def batch(self):
        return self.colors(torch.rand(256, 2))

    def psnr(self):
        self.eval()
        with torch.no_grad():
            x = torch.rand(512, 2, generator=torch.Generator().manual_seed(3))
            error = (self.colors(x) - self.truth(x)).square().mean()
        self.train()
        return float(-10 * error.log10())

    def pack(self):
        weight, bias = self.encoding.latent_decoder.fold(self.layer.weight, self.layer.bias)
        tensors = {"weight": weight, "bias": bias}
        return PackedScene(
            "image",
            {},
            GRID,
            self.encoding.rounded().numpy(),
            weights={name: quantize_weight(value, 10) for name, value in tensors.items()},
        )

    def train_steps(self, begin=0, end=NUM_STEPS):
        groups = [{"params": [self.encoding.latents], "lr": 0.2}]
        others = [*self.encoding.latent_decoder.parameters(), *self.layer.parameters()]
        optimizer = torch.optim.Adam([*groups, {"params": others, "lr": 0.01}])
        self.train()
        for step in range(begin, end):
            self.compressor.before_step(step)
            x = torch.rand(256, 2)
            loss = (self.colors(x) - self.truth(x)).square().mean()
            bits = self.compressor.latent_bits()
            if bits is not None:
                loss = loss + self.compressor.rate_loss(bits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.compressor.after_step(step)
            self.seen.append(self.compressor.metrics())
        if end == NUM_STEPS:
            self.compressor.finish()
        return self


@pytest.fixture
def make(reference):
    def make_picture(rate=None, quantizer="noise", **targets):
        options = CompressionOptions(
            **{"rate_lambda": 1e-3, **targets},
            quantizer=QuantizerOptions(quantizer),
            rate=RateOptions(**{"refresh_steps": 40, "sample_fraction": 1.0, **(rate or {})}),
            schedule=ScheduleOptions(warmup_steps=5),
        )
        return Picture(options, reference)

    return make_picture


def test_a_picture_is_trained_into_a_file_that_decodes(make):
    picture = make()
    before = picture.psnr()
    picture.train_steps()
    assert picture.psnr() > before + 1.5
    data = picture.compressor.size_meter.encode()
    scene = decode_scene(data)
    assert scene.kind == "image" and encode_scene(scene) == data
    assert np.array_equal(scene.symbols, picture.encoding.rounded().numpy())
    assert picture.quantize_weights and picture.seen[-1]["temperature"] == 0.1


def test_what_is_estimated_is_what_the_file_takes(make):
    picture = make().train_steps()
    meter = picture.compressor.size_meter
    picture.compressor._refresh(is_due=True)
    estimate = meter.estimate(picture.encoding.bits())
    parts = meter.file_bytes_by_part()
    assert sum(parts.values()) == meter.file_bytes()
    assert float(estimate["estimated_bytes_weights"]) == parts["weights"]
    by_part = [v for name, v in estimate.items() if name.startswith("estimated_bytes_")]
    assert float(estimate["estimated_bytes"]) == pytest.approx(float(sum(by_part)))
    # Tables, a few hundred bytes, are not in the estimate.
    assert 0.6 < float(estimate["estimated_bytes_latents"]) / parts["latents"] < 1.1


def test_a_target_size_is_met(make):
    free = make().train_steps().compressor.size_meter.file_bytes()
    target = 0.8 * free / 1000
    rdo = {"rdo_strength": 0.5, "rdo_start": RDO_STEP / NUM_STEPS}
    picture = make(rdo, target_size_kb=target)
    picture.train_steps()
    assert 0.9 * target < picture.compressor.size_meter.file_bytes() / 1000 <= target
    assert picture.compressor.steering.control.count > 5
    assert len({metrics["rate_lambda"] for metrics in picture.seen}) > 5


def test_latents_that_are_optimised_are_fewer_and_final(make):
    picture = make({"rdo_strength": 2.0, "rdo_start": RDO_STEP / NUM_STEPS})
    picture.train_steps(0, RDO_STEP)
    before = picture.compressor.size_meter.file_bytes()
    picture.train_steps(RDO_STEP, RDO_STEP + 1)
    assert picture.compressor.size_meter.file_bytes() < before
    assert not picture.encoding.latents.requires_grad


def test_a_target_quality_moves_the_rate(make):
    factors = [
        make(target_psnr=target).train_steps(0, 20).compressor.steering.control.factor
        for target in (5.0, 60.0)
    ]
    assert factors[0] > 1 > factors[1]


def test_a_step_of_few_levels_has_no_rate(make):
    picture = make({"level_dropout": 0.9})
    whole = []
    for step in range(20):
        picture.compressor.before_step(step)
        whole.append(picture.encoding.trained_levels == GRID.num_levels)
        assert (picture.compressor.latent_bits() is not None) == whole[-1]
        picture.compressor.after_step(step)
        assert picture.encoding.trained_levels == GRID.num_levels
    assert 0 < sum(whole) < 20
    assert make({"model": "learned"}, quantizer="none").compressor.latent_bits() is None


def test_the_rate_at_the_start_may_change_while_training(make):
    compressor = make().compressor
    compressor.options = dataclasses.replace(compressor.options, rate_lambda=0.5)
    assert compressor.rate_lambda == 0.5
    assert float(compressor.rate_loss(torch.tensor(10.0))) == pytest.approx(5 / GRID.num_entries)


def test_what_steering_remembers_survives_a_checkpoint_exactly():
    first, second = RateSteering(), RateSteering()
    for count in range(7):
        first.observe_size(1000 + 31 * count, 900.0, num_steps=20)
        second.observe_size(1000 + 31 * count, 900.0, num_steps=20)
        second.state = second.state.clone()
    assert first.control == second.control and first.control.count == 7


@pytest.mark.parametrize("plans", [[40] * 60, [60] * 20 + [33] * 40, [25] * 15 + [50] * 45])
def test_what_happens_at_a_fraction_happens_once_whatever_the_plan(make, plans, monkeypatch):
    picture = make({"rdo_strength": 0.5, "rdo_start": 0.8})
    compressor, seen, refreshed = picture.compressor, [], []
    monkeypatch.setattr(compressor, "_optimise", lambda: seen.append(step))
    monkeypatch.setattr(
        compressor,
        "_refresh",
        lambda *, is_due, is_urgent: refreshed.append(is_due or is_urgent),
    )
    done = 0.0
    quantizers = []
    for step in range(60):
        # As a clock plans it: what is done never falls.
        allowed = [n for n in (plans[step], compressor.schedule.num_steps) if step / n >= done]
        compressor.set_num_steps(allowed[0])
        done = step / compressor.schedule.num_steps
        compressor.before_step(step)
        compressor.after_step(step)
        quantizers.append(picture.encoding.quantizer.name)
        assert picture.encoding.latents.requires_grad == (not seen)
        if step + 1 >= compressor.schedule.num_steps:
            break
    assert len(seen) == 1 and seen[0] / compressor.schedule.num_steps >= 0.79
    switches = [
        k
        for k, pair in enumerate(zip(quantizers, quantizers[1:], strict=False), 1)
        if pair[0] != pair[1]
    ]
    assert len(switches) == 1 and refreshed[switches[0]]


@pytest.fixture
def hosts(make):
    """Two equal hosts: one refreshes at once, the other in a thread."""
    made = []
    for is_late in (False, True):
        host = make()
        if is_late:
            host.compressor._pack_sides = host.pack
        host.compressor.before_step(0)  # what is not there is made at once
        assert host.encoding.rate_model.is_installed
        with torch.no_grad():
            host.encoding.latents.mul_(90)
        made.append(host)
    return made


def test_a_thread_finds_what_the_step_would_have(hosts, monkeypatch):
    gate, code_lengths = threading.Event(), background_refresh.code_lengths

    def slowly(*arguments, **options):
        if threading.current_thread() is not threading.main_thread():
            assert gate.wait(120)
        return code_lengths(*arguments, **options)

    monkeypatch.setattr(background_refresh, "code_lengths", slowly)
    at_once, late = hosts
    before = late.encoding.rate_model.code_lengths.clone()
    for host in hosts:
        host.compressor._refresh(is_due=True, is_urgent=False)
    assert torch.equal(late.encoding.rate_model.code_lengths, before)
    with torch.no_grad():
        late.encoding.latents.zero_()  # training goes on
    late.compressor._refresh(is_due=True, is_urgent=False)  # while one runs: no other begins
    gate.set()
    late.compressor._background.install(waits=True)
    models = [host.encoding.rate_model for host in hosts]
    for name in ("code_lengths", "classes", "first_table"):
        assert torch.equal(*(getattr(model, name) for model in models)), name
    assert late.compressor.size_meter.side_bytes == at_once.compressor.size_meter.side_bytes


def test_what_is_urgent_is_done_at_once_and_stays(hosts):
    _, late = hosts
    late.compressor._refresh(is_due=True, is_urgent=False)
    late.encoding.set_quantizer(get_quantizer("straight_through"))
    late.compressor._refresh(is_due=True, is_urgent=True)
    assert late.encoding.rate_model.bins_per_unit == 1
    late.compressor._background.install(waits=True)
    assert late.encoding.rate_model.bins_per_unit == 1
