"""Checkpoints, classifiers and extractors from anyone: nothing of them is executed."""

import json
import struct
import zipfile

import pytest
import torch
from payloads import Storage, archive, calls, claims, content, hostile_files

import unnoise
from unnoise.evaluation.extractors.domain import DomainExtractor
from unnoise.evaluation.extractors.inception import InceptionExtractor
from unnoise.models.classifier import NoisyClassifier
from unnoise.training.callbacks.checkpoints import DurableCheckpointIO
from unnoise.untrusted import UnsafeFile, load_tensors

READERS = {
    "load": unnoise.load,
    "resume": lambda path: DurableCheckpointIO().load_checkpoint(path, weights_only=False),
    "classifier": NoisyClassifier.load,
    "inception": InceptionExtractor,
    "extractor": DomainExtractor.load,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The hostile files, and the file that shows if any of them was executed."""
    folder = tmp_path_factory.mktemp("hostile")
    mark = folder / "executed"
    return hostile_files(folder / "files", mark), mark


@pytest.fixture(scope="module")
def whole():
    """What is in a good checkpoint."""
    return content()


def test_every_payload_would_be_executed_by_a_careless_reader(tmp_path):
    mark = tmp_path / "executed"
    for name, payload in calls(mark).items():
        torch.save({"more": payload}, tmp_path / "file.ckpt")
        torch.load(tmp_path / "file.ckpt", weights_only=False)
        assert mark.exists(), f"{name} is harmless and proves nothing"
        mark.unlink()


@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("reader", READERS)
def test_no_hostile_file_is_executed(corpus, reader, variable, monkeypatch):
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    files, mark = corpus
    assert len(files) > 90
    for path in files:
        with pytest.raises(ValueError, match=path.name):
            READERS[reader](path)
        assert not mark.exists(), f"{path.name} was executed"


def test_what_torch_itself_was_told_to_allow_is_still_refused(tmp_path):
    with torch.serialization.safe_globals([print]):
        torch.save({"config": print}, tmp_path / "allowed.ckpt")
        assert torch.load(tmp_path / "allowed.ckpt", weights_only=True)["config"] is print
        with pytest.raises(UnsafeFile, match=r"names '(builtins|__builtin__) print'"):
            load_tensors(tmp_path / "allowed.ckpt")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"a/data.pkl": b"", "../../escaped": b"x"}, "leads out of it"),
        ({"a/data.pkl": b"", "/etc/escaped": b"x"}, "leads out of it"),
        ({"a/data.pkl": b"", "a\\..\\..\\escaped": b"x"}, "leads out of it"),
        ({"a/data.pkl": b"", "b/data/0": b"x"}, "something else"),
        ({"a/nothing": b""}, "something else"),
        ({"a/data.pkl": b"}."}, "no whole file of tensors|damaged|not a whole checkpoint"),
        ({"a/data.pkl": b"\x80\x02" + b"(" * 50}, "is damaged"),
    ],
)
def test_archives_of_something_else_are_refused(tmp_path, parts, told):
    path = archive(tmp_path / "file.ckpt", parts)
    with pytest.raises(ValueError, match=rf"file\.ckpt.*({told})"):
        unnoise.load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file.ckpt"]


def test_two_parts_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.ckpt", "w") as file:
        file.writestr("a/data.pkl", b"}.")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a/data.pkl", b"}.")
    with pytest.raises(UnsafeFile, match="two parts of one name"):
        load_tensors(tmp_path / "file.ckpt")


@pytest.mark.parametrize(
    "tensor",
    [
        (Storage(2**40), (2**40,), (1,)),
        (Storage(2**62), (2,), (1,)),
        (Storage(-1), (1,), (1,)),
        (Storage(1), (2**40,), (1,)),
        (Storage(1), (2**20, 2**20), (0, 0)),
        (Storage(1), (2,), (2**40,)),
        (Storage(1), (-1,), (1,)),
    ],
    ids=lambda each: f"{each[0].told[-1]} {each[1]} {each[2]}",
)
def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path, tensor):
    with pytest.raises(UnsafeFile, match=r"file\.ckpt"):
        load_tensors(claims(tmp_path / "file.ckpt", tensor))


def test_tensors_that_together_claim_more_than_the_file_holds_are_refused(tmp_path):
    many = [(Storage(100, str(key)), (100,), (1,)) for key in range(100)]
    with pytest.raises(UnsafeFile, match="bytes, but tensors of 40,000"):
        load_tensors(claims(tmp_path / "file.ckpt", *many))


def test_a_tensor_that_is_there_is_read(tmp_path):
    path = claims(tmp_path / "file.ckpt", (Storage(2), (2,), (1,)), size=8)
    assert load_tensors(path)["state_dict"]["model.a"][0].tolist() == [0, 0]


def test_containers_nested_without_measure_are_refused(tmp_path):
    tree = []
    for _ in range(60):
        tree = [tree, tree]
    torch.save({"config": tree}, tmp_path / "doubling.ckpt")
    tree = []
    for _ in range(200):
        tree = [tree]
    torch.save({"config": tree}, tmp_path / "deep.ckpt")
    tree = []
    tree.append(tree)
    torch.save({"config": tree}, tmp_path / "itself.ckpt")
    for name in ("doubling", "deep", "itself"):
        with pytest.raises(UnsafeFile, match=rf"{name}\.ckpt (refers to|is nested)"):
            unnoise.load(tmp_path / f"{name}.ckpt")


# The config in a checkpoint

PARTS = ("network", "schedule", "prediction", "conditioning", "sampler")
TARGETS = [
    *("os.system", "posix.system", "os.popen", "subprocess.run", "subprocess.Popen", "nt.system"),
    *("builtins.eval", "builtins.exec", "builtins.__import__", "builtins.open", "runpy.run_path"),
    *("torch.load", "torch.serialization.load", "torch.hub.load", "torch.jit.load", "torch.save"),
    *("torch.utils.model_zoo.load_url", "torch.hub.load_state_dict_from_url", "torch.nn.Linear"),
    *("unnoise.networks.unet.torch.load", "unnoise.networks.conditioning.text.torch.hub.load"),
    *("unnoise.diffusion.samplers.base.torch.load", "unnoise.networks.unet.torch.os.system"),
    *(
        "unnoise.models.trained.torch.load",
        "unnoise.models.trained.TrainedModel.load",
        "unnoise.api.load",
        "unnoise.untrusted.load_tensors",
    ),
    *("unnoise.training.loop.torch.hub.load", "unnoise.training.loop.fit"),
    *("unnoise.training.logging.wandb.WeightsAndBiases", "unnoise.training.logging.choices.wandb"),
    *(
        "unnoise.training.callbacks.checkpoints.DurableCheckpointIO",
        "unnoise.training.logging.jsonl.JsonLines",
    ),
    *(
        "unnoise.evaluation.extractors.inception.InceptionExtractor",
        "unnoise.evaluation.extractors.domain.fit",
    ),
    *("unnoise.data.hugging_face.HuggingFaceImages", "unnoise.data.folders.ImageFolder"),
    *("unnoise.data.downloads.fetch", "unnoise.config.nodes.instantiate", "unnoise.cli.train.main"),
    *("lightning.Trainer", "lightning.pytorch.Trainer", "torch.optim.Adam", "hydra.utils.call"),
    *("functools.partial", "importlib.import_module", "pickle.loads", "numpy.load", "yaml.load"),
    *("transformers.AutoModel.from_pretrained", "unnoise.networks.unet.UNet.__init__"),
    *("unnoise.networks.unet.__builtins__.exec", "unnoise.networks.unet.nn.Module"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_targets_in_a_checkpoint_are_refused(target, whole, tmp_path):
    mark, path = tmp_path / "executed", tmp_path / "file.ckpt"
    node = {"_target_": target, "command": f"touch {mark}", "f": str(path), "args": ["true"]}
    number = TARGETS.index(target)
    part, other = PARTS[number % 5], PARTS[(number + 1) % 5]
    inner = {**(whole["config"][other] or whole["config"]["network"]), "inner": node}
    for change in ({part: node}, {part: {**node, "_partial_": True}}, {other: inner}):
        torch.save({**whole, "config": whole["config"] | change}, path)
        with pytest.raises(UnsafeFile, match=r"file\.ckpt .*(allow-list|there is no module)"):
            unnoise.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("family", [
    *TARGETS, "unnoise.models.ema.EMA", "torch.nn.Module",
    "unnoise.models.base.GenerativeModel", "unnoise.models.trained.TrainedModel", 3, None,
])  # fmt: skip
def test_hostile_families_in_a_checkpoint_are_refused(family, whole, tmp_path):
    torch.save({**whole, "model": {**whole["model"], "family": family}}, tmp_path / "file.ckpt")
    with pytest.raises(UnsafeFile, match=r"file\.ckpt is not a whole checkpoint"):
        unnoise.load(tmp_path / "file.ckpt")


@pytest.mark.parametrize("shape", [[3, 10**9, 10**9], [], "shape", [3, 16, 17], None])
def test_a_model_of_another_shape_draws_nothing(shape, whole, tmp_path):
    torch.save({**whole, "model": {**whole["model"], "shape": shape}}, tmp_path / "file.ckpt")
    with pytest.raises(UnsafeFile, match=r"file\.ckpt"):
        unnoise.load(tmp_path / "file.ckpt")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("network", {"head_size": 0, "attention_resolutions": [16]}),
        ("network", {"multipliers": [-1]}),
        ("schedule", {"T": 0}),
        ("sampler", {"_target_": "unnoise.networks.adversarial.LatentSampler"}),
        ("learned_variance", "yes"),
        ("sampler", None),
        ("conditioning", {"_target_": "unnoise.networks.autoencoders.Identity"}),
    ],
    ids=str,
)
def test_parts_that_cannot_be_are_refused_when_loaded(key, change, whole, tmp_path):
    part = whole["config"][key]
    changed = part | change if isinstance(part, dict) and key != "sampler" else change
    config = whole["config"] | {key: changed}
    torch.save({**whole, "config": config}, tmp_path / "file.ckpt")
    with pytest.raises(UnsafeFile, match=r"file\.ckpt"):
        unnoise.load(tmp_path / "file.ckpt")


def test_weights_that_are_no_real_numbers_are_refused(whole, tmp_path):
    state = {k: v.long() for k, v in whole["state_dict"].items()}
    torch.save({**whole, "state_dict": state}, tmp_path / "file.ckpt")
    with pytest.raises(UnsafeFile, match="but its own config wants"):
        unnoise.load(tmp_path / "file.ckpt")


def test_a_good_checkpoint_is_loaded(whole, tmp_path):
    torch.save(whole, tmp_path / "file.ckpt")
    assert len(unnoise.load(tmp_path / "file.ckpt", device="cpu").sample(1)) == 1


def test_a_network_larger_than_its_weights_is_not_built(whole, tmp_path):
    network = {**whole["config"]["network"], "channels": 2**24}
    torch.save({**whole, "config": {**whole["config"], "network": network}}, tmp_path / "file.ckpt")
    with pytest.raises(UnsafeFile, match="but its own config wants"):
        unnoise.load(tmp_path / "file.ckpt")


def test_a_checkpoint_cannot_name_what_is_not_a_file_of_it(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("PASSWORD")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_00000001.ckpt").symlink_to(secret)
    with pytest.raises(FileNotFoundError, match="is damaged") as told:
        unnoise.load(tmp_path / "run")
    assert "PASSWORD" not in str(told.value)


# Extractors: safetensors


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(shape, start, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": tensor([2**40], 0, 2**42)}, b""),
        ({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, bytes(4)),
        ({"a": tensor([1], 2**63, 2**63 + 4)}, bytes(4)),
        ({"a": tensor([2**62, 4], 0, 0)}, b""),
        ({"a": tensor([2**33, 2**33], 0, 4)}, bytes(4)),
        ({"a": tensor([2], 0, 4)}, bytes(4)),
        ({"a": tensor([1], 4, 8)}, bytes(8)),
        ({"a": tensor([1], 8, 4)}, bytes(8)),
        ({"a": {**tensor([1], 0, 4), "dtype": "OBJECT"}}, bytes(4)),
        (
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        (b"{" * 100_000, b""),
        (b"\xff\xfe not json", b""),
        ({"__metadata__": {"unnoise extractor": "[" * 100_000}}, b""),
        ({"__metadata__": {"unnoise extractor": '{"classes": [], "size": 1e99}'}}, b""),
    ],
)
def test_hostile_safetensors_are_refused(tmp_path, header, data):
    path = safetensors(tmp_path / "file.safetensors", header, data)
    with pytest.raises(UnsafeFile, match=r"file\.safetensors"):
        DomainExtractor.load(path)


@pytest.mark.parametrize("length", [2**63, 2**40, 100])
def test_a_header_longer_than_its_file_is_refused(tmp_path, length):
    (tmp_path / "file.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(UnsafeFile, match="but a header of"):
        DomainExtractor.load(tmp_path / "file.safetensors")


@pytest.mark.parametrize("change", [{"channels": 2**40}, {"size": 10**6}, {"size": -1}])
def test_an_extractor_is_not_larger_than_its_weights(tmp_path, change):
    learned = {"name": "evil", "classes": ["a", "b"], "channels": 3, "size": 16, "data": "",
               "seed": 0, "steps": 1, "accuracy": 1.0, **change}  # fmt: skip
    path = safetensors(
        tmp_path / "file.safetensors",
        {"__metadata__": {"unnoise extractor": json.dumps(learned)}, "a": tensor([1], 0, 4)},
        bytes(4),
    )
    with pytest.raises(UnsafeFile, match=r"file\.safetensors"):
        DomainExtractor.load(path)
