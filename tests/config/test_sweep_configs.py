"""Jobs of a sweep that share what was composed are those that Hydra composes one by one."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from unnoise.config import sweep
from unnoise.config.sweep import sweep_of

GRIDS = {
    "values": ["seed=1,2,3", "optimizer.lr=1e-3,2e-3"],
    "lists, texts and null": [
        "network.multipliers=[1,2],[1,2,4],[1]",
        "name=a,'b c',c",
        "gradient_clip=null,1.0",
    ],
    "interpolations": ["batch_size=8,${max_steps},16", "max_steps=3,4", "warmup_steps=${seed}"],
    "groups": ["sampler=ddim,ddpm", "sampler.steps=5,10", "data=sprites,mnist"],
    "experiments": ["experiment=sprites,sprites_flow", "seed=1,2"],
    "a package": ["sampler@callbacks.samples.sampler=ddpm,ddim", "seed=1,2"],
    "added": ["+trainer.limit_val_batches=1,2", "++trainer.max_time=1,2", "seed=1,2"],
    "removed": ["~callbacks.samples", "callbacks.checkpoints.every=1,2"],
    "a tree and its leaf": ["optimizer.lr=1,2", "optimizer={lr:3},{lr:4}"],
    "a leaf of a typed tree": ["optimizer.lr=1,2", "optimizer={lr:3}"],
    "folders of one's own": ["seed=1,2", "hydra.sweep.subdir=${hydra.job.override_dirname}_x"],
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_shared_configs_are_those_of_hydra(grid, monkeypatch):
    shared = sweep_of("train", grid, [])
    monkeypatch.setattr(
        sweep._Configs,
        "of",
        lambda self, overrides: self.loader.load_sweep_config(self.master, overrides),
    )
    alone = sweep_of("train", grid, [])
    assert len(shared.jobs) > 1
    assert not shared.problems
    assert shared.jobs == alone.jobs


def test_only_choices_are_composed(monkeypatch):
    composed, load = [], ConfigLoaderImpl.load_sweep_config

    def counted(self, master, overrides):
        composed.append(overrides)
        return load(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    assert len(sweep_of("train", ["seed=range(20)", "sampler=ddim,ddpm"], []).jobs) == 40
    assert len(composed) == 2
