"""The training command as a user types it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from test_classics import CIFAR10_FILES, write_idx

from unnoise.cli import train
from unnoise.config.compose import CONF, check_command_line
from unnoise.runs.manifest import Pruned

TINY_NET = "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null"
TINY = (
    f"{TINY_NET} network.attention_resolutions=[] max_steps=2 batch_size=2 validation_images=2 "
    "sampler.steps=2 callbacks.samples.count=2 "
    "callbacks.samples.sampler.steps=2 logger=none"
).split()
FEW = ["data.size=60", "data.validation_size=40"]  # sprites, of which there are 20,000 otherwise


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in a folder of its own, without credentials."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *arguments])
    train.main()


def check(*overrides):
    config, found = check_command_line("train", list(overrides))
    found += train.check(config)
    return [str(problem) for problem in found]


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = [
    name.removeprefix("/")
    for path in (CONF / "train.yaml", *(CONF / "family").glob("*.yaml"))
    for each in yaml.safe_load(path.read_text())["defaults"]
    for name in each
    if isinstance(each, dict) and "override" not in name
]
CHOICES = [f"{group}={option}" for group in GROUPS for option in options(group)]
EXPERIMENTS = options("experiment")
TUNED = ["objective.diffusion_steps=200", "objective.every=200"]
COMPANIONS = {
    "autoencoder=trained": ["prediction=v", "objective=v"],
    "data=scenes": ["network.attention_resolutions=[16]"],
    "network=sd15": ["network.attention_resolutions=[16, 8, 4]"],
    "objective=consistency": ["prediction=v", "sampler=consistency", *TUNED],
    "sampler=consistency": ["prediction=v", "objective=consistency", *TUNED],
    "schedule=flow": ["prediction=flow", "objective=velocity"],
    "schedule=flow_logit_normal": ["prediction=flow", "objective=velocity"],
    "schedule=linear_zero_snr": ["prediction=v", "objective=v"],
    "network=generator": ["family=gan"],
    "network=realnvp": ["family=flow"],
    "network=tarflow": ["family=flow"],
    "network=vae": ["family=vae"],
    "sampler=latent": ["family=gan"],
    "objective=hybrid": ["learned_variance=true"],
    "objective=vlb": ["learned_variance=true"],
    "sampler=reconstruction": ["family=autoencoder"],
} | {
    f"network={each}": ["family=autoencoder"]
    for each in ("kl_f2", "kl_f4", "kl_f4_small", "kl_f8", "vq_f4", "fsq_f4")
}
"""What some options cannot do without."""


SMALL = {
    "sprites_dit": "network.width=8 network.depth=1 network.heads=1",
    "scenes_sd": "network.width=8 network.depth=1 network.heads=1",
    "imagenet_dit": "network.width=8 network.depth=1 network.heads=1 data.image_size=16 "
    "data.classes=2 data.validation_share=0.5",
    "sprites_gan": "network.channels=4 discriminator.channels=4",
    "sprites_vae": "network.channels=4",
    "sprites_tarflow": "network.width=8 network.blocks=1 network.layers=1 network.heads=1",
    "sprites_realnvp": "network.width=4",
    "sprites_kl": "network.channels=4",
    "scenes_kl": "network.channels=4",
    "scenes_vq": "network.channels=4",
}


FIRST_STAGES = {
    "sprites_ldm": "sprites_kl",
    "trained": "sprites_kl",
    "imagenet_dit": "sprites_kl",
    **dict.fromkeys(("scenes_ldm", "scenes_sd"), "scenes_kl"),
}


def small(experiment):
    """What makes it quick."""
    own = SMALL.get(experiment, "").split()
    of_unet = ("network.", "sampler.", "callbacks.samples.sampler.")
    return [*own, *(word for word in TINY if not (own and word.startswith(of_unet)))]


WARNED = {
    "experiment=imagenet_dit": ["prediction"],  # ε in a latent, as the paper has it
    "experiment=cifar10_ect": ["objective.diffusion_steps"],  # without from=
    "experiment=sprites_ect": ["objective.diffusion_steps"],
}
SETS_ITS_SAMPLER = {"imagenet_dit", "sprites_langevin", "sprites_learned_variance"}
OWN_FILES = {
    "data=image_folder": ["data.root=pictures"],
    "data=sprite_sheet": ["data.root=pictures/1.png"],
    "data=sprites_file": ["data.root=pictures"],
    "data=hugging_face": ["data.name=pictures"],
    "experiment=imagenet_dit": ["data.root=folder", "data.image_size=16", "data.classes=2"],
}


def test_another_sampler_can_be_chosen_in_every_experiment():
    """Only the steps are an experiment's; the sampler's own stands in the sampler's file."""
    for experiment in sorted(set(EXPERIMENTS) - SETS_ITS_SAMPLER):
        config, _ = check_command_line("train", [f"experiment={experiment}", "sampler=heun"])
        if config["_target_"].endswith("DiffusionRecipe"):
            allowed = {"steps", "stepper", "spacing", "threshold", "guidance", "_target_"}
            assert config["sampler"].keys() <= allowed, experiment
            assert "eta" not in config["sampler"]["stepper"], experiment


def test_consistency_models_are_drawn_in_a_step_or_two():
    for experiment in EXPERIMENTS:
        config, _ = check_command_line("train", [f"experiment={experiment}"])
        for sampler in (config["sampler"], config["callbacks"]["samples"]["sampler"]):
            if sampler.get("stepper", {}).get("_target_", "").endswith(".Consistency"):
                assert sampler["steps"] <= 2, experiment


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_every_option_of_every_group_is_right(choice, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    extra = ["batch_size=2"] if choice in OWN_FILES else []
    for k in range(40):
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (k, 0, 0)).save(folder / f"{k}.png")
    for name in ("sprites_1788_16x16.npy", "sprite_labels_nc_1788_16x16.npy"):
        (folder / name).touch()
    two_classes(tmp_path / "folder")
    extra += COMPANIONS.get(choice, [])
    if first := FIRST_STAGES.get(choice.rpartition("=")[2]):
        extra += first_stage(first, FEW, monkeypatch)
    if choice == "initial=run":
        command(monkeypatch, "hydra.run.dir=first", *FEW, *TINY)
        extra += [*TINY, "initial.run=first"]
    found = check(choice, *extra, *OWN_FILES.get(choice, []))
    assert [each.partition(":")[0] for each in found] == WARNED.get(choice, [])


def two_classes(folder):
    """Four pictures each."""
    for k in range(8):
        file = folder / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (k, 0, 0)).save(file)


def first_stage(experiment, root, monkeypatch):
    """The autoencoder of a run of two steps."""
    run = f"experiment={experiment}", "hydra.run.dir=first/stage"
    command(monkeypatch, *run, *root, *small(experiment))
    return ["autoencoder=trained", "autoencoder.run=first/stage"]


@pytest.fixture
def data_root(tmp_path):
    """Tiny files in the formats of the real ones."""
    write_idx(tmp_path / "idx")
    folder = tmp_path / "cifar" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in CIFAR10_FILES.items():
        (folder / name).write_bytes(content)
    two_classes(tmp_path / "folder")
    idx = [name for name in EXPERIMENTS if "mnist" in name]
    folders = {"imagenet_dit": "folder"}
    return (
        folders
        | dict.fromkeys(idx, "idx")
        | dict.fromkeys([name for name in EXPERIMENTS if "cifar10" in name], "cifar")
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_two_steps(experiment, monkeypatch, tmp_path, data_root, capsys):
    root = [f"data.root={data_root[experiment]}"] if experiment in data_root else FEW
    way = [*root, *small(experiment)]
    if experiment in FIRST_STAGES:
        way += first_stage(FIRST_STAGES[experiment], FEW, monkeypatch)
        capsys.readouterr()
    command(monkeypatch, f"experiment={experiment}", *way)
    (run_dir,) = (tmp_path / "outputs" / experiment).iterdir()
    printed = capsys.readouterr().out
    files = ["samples/step_00000002.png", "metrics.jsonl", "checkpoints/step_00000002.ckpt"]
    of_diffusion = ["samples/denoising.gif", "samples/forward_process.png"]
    of_other_families = SMALL.keys() - {"sprites_dit", "imagenet_dit"}
    for name in files + of_diffusion * (experiment not in of_other_families):
        assert (run_dir / name).exists()
        assert f"outputs/{experiment}/{run_dir.name}/{name}" in printed
    assert Image.open(run_dir / "samples" / "step_00000002.png").size[0] > 100
    assert (run_dir / "config.yaml").exists()
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["world_size"] == 1
    assert len(manifest["data"]["fingerprint"]) == 64


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["network.chanels=8"], "network.chanels=8: unknown key; did you mean 'network.channels'?"),
        (["data=mnistt"], "data=mnistt: no such option; did you mean 'mnist'?"),
        (["max_step=9"], "max_step=9: unknown key; did you mean 'max_steps'?"),
        (["max_steps=many"], "max_steps: 'many' is not a whole number"),
        (["network.dropout=1.5"], "network.dropout:"),
        (["precision=f8"], "precision:"),
        (["network.attention_resolutions=[7]"], "network: attention_resolutions"),
        (["data=fashion_mnist", "data.image_size=30"], "network: 30 pixels cannot"),
        (["batch_size=20001"], "batch_size: 20001 is more than the data (20000 images)"),
        (["batch_size=10", "accumulate=3"], "batch_size: 10 does not divide into 3 parts"),
        (["sampler.steps=2000"], "sampler.steps: 2000 steps with a schedule of T=1000"),
        (["data=mnist", "data.root=/no/such"], "data: data.root /no/such is not a folder"),
        (["logger=wandb"], "logger: Weights & Biases has no credentials here"),
        (["+trainer.max_stepz=3"], "trainer.max_stepz: unknown key"),
        (["optimizer.lr=fast"], "optimizer.lr:"),
        (["schedule.T=0"], "schedule.T:"),
        (["sampler.stepper.variance=learned"], "sampler.stepper.variance: nothing learns it"),
        (["schedule=linear", "schedule.beta_1=1.5"], "schedule.beta_1:"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_mistake_is_told_with_its_key(overrides, told):
    found = check(*overrides)
    assert any(problem.startswith(told) for problem in found), found


def test_a_schedule_that_does_not_reach_noise_is_a_warning(monkeypatch, capsys):
    (warning,) = check("schedule.T=200")
    assert warning.startswith("schedule: does not reach noise: 13.2%")
    command(monkeypatch, *TINY, "schedule.T=200")
    assert "1 warning in the configuration" in capsys.readouterr().err


def test_all_mistakes_are_told_at_once_and_nothing_is_run(monkeypatch, capsys, tmp_path):
    mistakes = ["network.chanels=8", "seed=-1", "schedule.T=x", "precision=f8", "smapler=ddim",
                "trainer.num_nodes=x",]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *mistakes)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    keys = ("network.chanels", "seed", "schedule.T", "precision", "smapler", "trainer.num_nodes")
    for key in keys:
        assert f"\n  {key}" in told
    assert sum(line.startswith("  ") for line in told.splitlines()) == len(keys)
    assert not (tmp_path / "outputs").exists()


def test_mistakes_in_a_users_own_file_are_told(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "big.yaml").write_text(
        "# @package _global_\ndefaults: [{override /data: mnist}]\nmax_stepz: 3\nseed: one\n"
    )
    with pytest.raises(SystemExit):
        command(monkeypatch, "--config-dir", "mine", "experiment=big")
    told = capsys.readouterr().err
    assert "max_stepz  unknown key; did you mean 'max_steps'?" in told
    assert "seed       'one' is not a whole number" in told


def test_a_primary_config_of_ones_own(monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.yaml").write_text("defaults: [train, _self_]\nname: own\n")
    command(monkeypatch, "--config-dir", "mine", "--config-name", "run", *TINY, *FEW)
    assert len(list((tmp_path / "outputs" / "own").iterdir())) == 1


def test_a_text_encoder_that_is_not_there_is_told_before_the_run(monkeypatch, tmp_path, capsys):
    encoder = "conditioning.encoder._target_=unnoise.networks.conditioning.HuggingFaceEncoder"
    where = ["+conditioning.encoder.name=nowhere/at/all", "+conditioning.encoder.width=64"]
    with pytest.raises(SystemExit):
        command(monkeypatch, "conditioning=text", encoder, *where, *TINY)
    assert "conditioning.encoder: no text encoder can be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["resume=nowhere"], "resume: there is no run or checkpoint nowhere"),
        (["resume={run}/checkpoints/step_00000002.ckpt"], "is not a run directory"),
        (["resume={run}", "schedule.T=500"], "schedule.T: is 500, but"),
        (["resume={run}", "lr_decay=cosine"], "lr_decay: is 'cosine', but"),
        (["resume={run}", "prediction=v"], "prediction._target_: is"),
        (["schedule.T=40", "sampler.steps=9"], "callbacks.samples.sampler.steps: 50 steps with"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs: is set from the key max_steps"),
        (["precision=fp16"], "optimizer.fused: must be false with precision=fp16"),
        (["sampler.guidance.scale=3"], "sampler.guidance.scale: guidance needs a condition"),
        (["+network.outputs=4"], "network.outputs: is no key: it follows from"),
        (["+network.condition.vector=4"], "network.condition: is no key: it follows from"),
        (["conditioning=text", "data=cifar10"], "conditioning: reads captions"),
        (
            ["conditioning=text", "flip=true"],
            "flip: mirrors pictures, but not what captions may say",
        ),
        (["schedule=linear_zero_snr"], "prediction: EpsilonPrediction cannot be used"),
        (["objective=hybrid"], "objective: trains a variance that the network lacks"),
        (["conditioning=class", "conditioning.classes=3"], "conditioning: knows 3 classes, but"),
        (
            ["conditioning=super_resolution", "conditioning.view.factor=5"],
            "conditioning: factor 5 does not divide",
        ),
        (
            ["conditioning=class", "condition_dropout=0", "sampler.guidance.scale=2"],
            "sampler.guidance.scale: guidance needs a model that can do without",
        ),
        (["schedule=flow", "prediction=flow"], "objective: has weight 0 where nothing is left"),
        (["schedule=flow", "prediction=x0"], "objective: gives one in a thousand"),
        (
            ["schedule=cosine_log_normal", "objective=vlb", "objective.variance=beta"],
            "objective: takes all levels alike",
        ),
        (["learned_variance=true"], "objective: leaves the learned variance untrained"),
    ],
    ids=str,
)
def test_what_would_end_or_falsify_a_run_is_told_before(overrides, told, monkeypatch, tmp_path):
    base = [o for o in TINY if "callbacks.samples.sampler.steps" not in o]
    if "{run}" in overrides[0]:
        command(monkeypatch, *TINY, *FEW)
        (run,) = (tmp_path / "outputs" / "sprites").iterdir()
        overrides = [o.format(run=run) for o in overrides]
        base = [*TINY, *FEW]
    found = check(*base, *overrides)
    assert any(told in problem for problem in found), found


def test_missing_files_are_told_without_a_traceback(monkeypatch, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("unnoise.data.classics.fetch", lambda urls, path, digest: _offline(path))
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *TINY, "data=mnist", "data.root=empty")
    assert stop.value.code == 2
    assert "data: put train-images-idx3-ubyte.gz there" in capsys.readouterr().err


def _offline(path):
    raise FileNotFoundError(f"put {path.name} there")


def test_class_condition_trains_and_draws(monkeypatch, tmp_path):
    command(monkeypatch, *TINY, *FEW, "conditioning=class")
    (run_dir,) = (tmp_path / "outputs" / "sprites").iterdir()
    state = torch.load(run_dir / "checkpoints" / "step_00000002.ckpt", weights_only=True)
    assert state["state_dict"]["model.conditioner.table.weight"].shape == (6, 128)


def test_a_pruned_run_says_so_and_where(monkeypatch, capsys):
    def prune(self, trainer, *arguments):
        raise Pruned(f"validation/loss 0.5 at step {trainer.global_step} is worse than others'")

    monkeypatch.setattr("unnoise.training.callbacks.samples.SampleGrid.on_train_batch_end", prune)
    command(monkeypatch, *TINY, *FEW)
    said = capsys.readouterr().out
    assert "pruned: validation/loss 0.5 at step 1 is worse than others', after 0 min" in said
    assert "done" not in said
    assert "go on" not in said


def test_a_killed_command_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """kill -9 in the middle, the same command plus resume=true, against an uninterrupted run."""
    arguments = [*TINY, *FEW, "max_steps=20", "callbacks.checkpoints.every=5", "batch_size=16"]
    script = [sys.executable, "-c", "from unnoise.cli.train import main; main()", *arguments]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()

    def start(*extra):
        return subprocess.Popen([*script, *extra], cwd=killed, stderr=subprocess.DEVNULL)

    process = start()
    deadline = time.monotonic() + 120
    while not list(killed.glob("outputs/*/*/checkpoints/step_*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(killed.glob("outputs/*/*/checkpoints/step_00000020.ckpt"))
    resumed = start("resume=true")
    monkeypatch.chdir(whole)
    command(monkeypatch, *arguments)
    assert resumed.wait() == 0

    def final(folder: Path):
        (path,) = folder.glob("outputs/*/*/checkpoints/step_00000020.ckpt")
        return torch.load(path, weights_only=True)["state_dict"]

    a, b = final(whole), final(killed)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
