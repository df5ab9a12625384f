"""Measuring while training: numbers of the right pictures, and training does not notice."""

import json
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from seeing import Tiny, find_tiny
from tiny import experiment

from unnoise.data.sprites import Sprites
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Ancestral, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.diffusion.times import LossSecondMomentTimes
from unnoise.evaluation.estimates import KINDS, metrics_by_name
from unnoise.evaluation.reference import reference
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.likelihood import BitsPerDim
from unnoise.training.callbacks.measurement import is_logged
from unnoise.training.callbacks.quality import Quality
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.loop import fit

SAMPLER = Sampler(DDIM(), steps=3)
STOCHASTIC = Sampler(Ancestral(), steps=2)


@pytest.fixture(autouse=True)
def tiny_extractor(monkeypatch, tmp_path):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unnoise.evaluation.evaluator.find_extractor", find_tiny)


@pytest.mark.parametrize(("rank", "line"), [(0, '{"step": 1, "m": 2}\n'), (1, '{"step": 1, "m')])
def test_only_the_first_process_reads_what_it_writes(rank, line, tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.path.write_text(line)
    asked = []
    strategy = SimpleNamespace(broadcast=lambda found: asked.append(found) or True)
    trainer = SimpleNamespace(
        loggers=[log], global_step=1, is_global_zero=rank == 0, strategy=strategy
    )
    assert is_logged(trainer, "m")
    assert asked == [rank == 0]


class Keep(Callback):
    def on_fit_end(self, trainer, module):
        self.model = module.ema.model


def rows(run_dir, metric="quality/fd_tiny"):
    every = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    return [row for row in every if metric in row]


def final(run_dir):
    return torch.load(checkpoints(run_dir)[-1], weights_only=True)


def assert_equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif torch.is_tensor(a):
        assert torch.equal(a, b)


def test_the_numbers_are_those_of_the_averaged_models_pictures(tmp_path):
    keep = Keep()
    measured = Quality(SAMPLER, every=2, count=10, reference_count=20, metrics=KINDS, batch_size=4)
    fit(experiment({"keep": keep, "quality": measured}, max_steps=3), {}, tmp_path, None)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [2, 3]
    pixels = keep.model.sample(SAMPLER, Noise(0, torch.arange(10)))
    images = Sprites(size=40, validation_size=8).images("train")
    expected = metrics_by_name(reference(images, "train", 20, Tiny(), torch.device("cpu")))
    expected.update(Tiny()(pixels))
    for name, value in expected.compute().items():
        assert found[-1][f"quality/{name}"] == pytest.approx(float(value), rel=1e-4, abs=1e-9)
    assert found[-1]["quality/seconds"] > 0


def test_the_real_pictures_are_those_of_the_split(tmp_path):
    fd = {}
    for split in ("train", "validation"):
        measured = Quality(SAMPLER, count=6, metrics=["fd"], split=split)
        fit(experiment({"quality": measured}, max_steps=1), {}, tmp_path / split, None)
        (row,) = rows(tmp_path / split)
        fd[split] = row["quality/fd_tiny"]
    assert fd["train"] != fd["validation"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.3},
        {"dropout": 0.3, "accumulate": 2},
        {"conditional": True},
        {"times": partial(LossSecondMomentTimes, 2, 2)},
    ],
    ids=str,
)
def test_training_does_not_notice(tmp_path, changes):
    measured = {
        "quality": Quality(STOCHASTIC, every=2, count=6, metrics=["fd"]),
        "bits": BitsPerDim(every=1, count=3, steps=2),
    }
    for name, callbacks in (("without", {}), ("with", measured)):
        made = {key: value() if key == "times" else value for key, value in changes.items()}
        run = experiment(callbacks, max_steps=5, validate_every=2, **made)
        fit(run, {}, tmp_path / name, None)
    with_, without = final(tmp_path / "with"), final(tmp_path / "without")
    assert len(rows(tmp_path / "with")) == 3
    assert_equal(with_["state_dict"], without["state_dict"])
    assert_equal(with_["optimizer_states"][0], without["optimizer_states"][0])


def test_a_network_that_draws_from_torchs_generator_does_not_notice(tmp_path):
    class Drawing(Callback):
        """Adds noise to the weights from torch's own generator, which nobody seeds."""

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            with torch.no_grad():
                for p in module.model.parameters():
                    p += 0.01 * torch.randn_like(p)

    for name in ("without", "with"):
        measured = {"quality": Quality(STOCHASTIC, every=1, count=6, metrics=["fd"])}
        callbacks = {"drawing": Drawing()} | (measured if name == "with" else {})
        run = experiment(callbacks, max_steps=3)
        torch.manual_seed(5)
        fit(run, {}, tmp_path / name, None)
    assert_equal(final(tmp_path / "with")["state_dict"], final(tmp_path / "without")["state_dict"])


def test_a_checkpoint_holds_neither_extractor_nor_reference(tmp_path):
    sizes = []
    for name in ("without", "with"):
        measured = {"quality": Quality(SAMPLER, every=1, count=6)} if name == "with" else {}
        fit(experiment(measured, max_steps=2), {}, tmp_path / name, None)
        content = final(tmp_path / name)
        assert not any("unused" in key or "real" in key for key in content["state_dict"])
        assert set(content["callbacks"]) == {"BadNumbers"}
        sizes.append(checkpoints(tmp_path / name)[-1].stat().st_size)
    assert abs(sizes[0] - sizes[1]) < 200


def test_its_time_does_not_count_in_images_per_second(tmp_path, monkeypatch):
    monkeypatch.setattr(Quality, "measure", lambda *args: time.sleep(0.5) or {})
    measured = {"quality": Quality(SAMPLER, every=1, count=6)}
    fit(experiment(measured, max_steps=4), {}, tmp_path, None)
    rates = [row["train/images_per_second"] for row in rows(tmp_path, "train/images_per_second")]
    costs = [row["quality/seconds"] for row in rows(tmp_path, "quality/seconds")]
    assert len(costs) == 4
    assert min(costs) > 0.5
    assert min(rates) > 8 / 0.5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 4])
def test_a_measurement_that_a_kill_cut_off_is_made_up_for(tmp_path, monkeypatch, step):
    def run():
        measured = Quality(SAMPLER, every=2, count=6, metrics=["fd", "kid"])
        return experiment({"quality": measured}, max_steps=4)

    def killed(self, trainer, module):
        if trainer.global_step == step:
            raise Killed
        return measure(self, trainer, module)

    fit(run(), {}, tmp_path / "whole", None)
    measure = Quality.measure
    monkeypatch.setattr(Quality, "measure", killed)
    with pytest.raises(Killed):
        fit(run(), {}, tmp_path / "killed", None)
    monkeypatch.setattr(Quality, "measure", measure)
    for _ in range(2):  # going on with a finished run measures nothing again
        fit(run(), {}, tmp_path / "killed", checkpoints(tmp_path / "killed")[-1])
    whole, killed_ = (
        [(row["step"], row["quality/fd_tiny"], row["quality/kid_tiny"]) for row in rows(each)]
        for each in (tmp_path / "whole", tmp_path / "killed")
    )
    assert whole == killed_


def test_an_extractor_that_is_not_there_is_an_error_before_the_first_step(tmp_path):
    measured = Quality(SAMPLER, count=6, extractor="nobodys")
    with pytest.raises(ValueError, match="there is no extractor nobodys"):
        fit(experiment({"quality": measured}), {}, tmp_path, None)
    assert not (tmp_path / "metrics.jsonl").exists(), "nothing was trained"


def test_a_metric_that_does_not_exist_is_an_error_before_the_first_step(tmp_path):
    measured = Quality(SAMPLER, count=6, metrics=["fd", "fid"])
    with pytest.raises(ValueError, match="there is no metric fid; did you mean 'fd'\\?"):
        fit(experiment({"quality": measured}), {}, tmp_path, None)
    assert not (tmp_path / "metrics.jsonl").exists(), "nothing was trained"


@pytest.mark.parametrize("learned", [False, True])
def test_bits_per_dim_are_those_of_the_averaged_model(tmp_path, learned):
    keep = Keep()
    changes = {}
    if learned:
        from unnoise.diffusion.objectives import HybridLoss
        from unnoise.networks.unet import UNet

        network = UNet(
            (3, 16, 16), 6, channels=8, multipliers=(1,), blocks=1, attention_resolutions=()
        )
        changes = {"network": network, "learned_variance": True, "objective": HybridLoss()}
    measured = {"keep": keep, "bits": BitsPerDim(every=1, count=5, steps=4, batch_size=2)}
    run = experiment(measured, schedule=linear(T=20), max_steps=2, **changes)
    fit(run, {}, tmp_path, None)
    found = rows(tmp_path, "validation/bits_per_dim")
    assert [row["step"] for row in found] == [1, 2]
    row, ids = found[-1], torch.arange(5)
    image = run.data.images("validation").read(ids)
    terms = keep.model.variational_bound({"image": image}, Noise(0, ids), 4)
    assert row["validation/bits_per_dim"] == pytest.approx(float(terms.total.mean()), rel=1e-5)
    parts = terms.prior, terms.steps.sum(1), terms.decoder
    for name, part in zip(("prior", "steps", "decoder"), parts, strict=True):
        expected = pytest.approx(float(part.mean()), rel=1e-5)
        assert row[f"validation/bits_per_dim_{name}"] == expected
