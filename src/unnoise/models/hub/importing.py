"""From a folder of diffusers to a model, and the parts of a run's config that it stands for."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.nodes import MODEL, instantiate
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.models.base import GenerativeModel
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.hub.autoencoder import autoencoder_node, autoencoder_node_faults
from unnoise.models.hub.folder import WEIGHTS, Folder, read_folder
from unnoise.models.hub.scheduler import drawing_of, scheduler_node_faults
from unnoise.models.hub.unet import size, unet_node, unet_node_faults
from unnoise.networks.autoencoders import ConvolutionalAutoencoder, from_diffusers
from unnoise.networks.pretrained import unet_from_diffusers
from unnoise.runs.averaged import weights_digest
from unnoise.runs.identity import digest
from unnoise.untrusted import UnsafeFile, check_fit

TEXT_ENCODER = "text_encoder"  # in a run directory
CONDITIONING = "unnoise.networks.conditioning."
SCALE = 7.5  # of guidance, the default of StableDiffusionPipeline


@dataclass(frozen=True)
class Imported:
    """A model, the nodes of its config by key, and what is done otherwise than in diffusers.

    ``files`` are those of its text encoder, which the run is to have in ``TEXT_ENCODER``.
    """

    model: GenerativeModel
    nodes: dict[str, Any]
    remarks: list[str]
    files: list[Path] = field(default_factory=list)

    def placed(self, run: Path) -> None:
        """Tell the nodes where the run is at last."""
        if isinstance(autoencoder := self.nodes.get("autoencoder"), dict):
            autoencoder["run"] = str(run.absolute())
        if self.files:
            self.nodes["conditioning"]["encoder"]["name"] = str((run / TEXT_ENCODER).absolute())

    def copy(self, run: Path) -> None:
        """The text encoder into the run's folder, if there is one."""
        for file in self.files:
            (run / TEXT_ENCODER).mkdir(exist_ok=True)
            shutil.copyfile(file, run / TEXT_ENCODER / file.name)


def import_folder(path: Path, run: Path) -> Imported:
    """The model of a folder, for a run directory ``run`` to hold.

    Raises:
        FileNotFoundError: there is no such folder, or it is not whole.
        ValueError: something in it cannot be done here: the message has every reason.
        UnsafeFile: a file is damaged, or may run code, or its weights are of another network.
    """
    folder = read_folder(path)
    if faults := list(_faults(folder)):
        raise ValueError(f"{path} cannot be read here:\n  " + "\n  ".join(faults))
    return _autoencoder(folder) if "" in folder.configs else _pipeline(folder, run)


def _faults(folder: Folder) -> Iterator[str]:
    for part, config in folder.configs.items():
        if part == "unet":
            yield from unet_node_faults(config, folder.shown(part))
        elif part == "scheduler":
            yield from scheduler_node_faults(config, folder.shown(part, "scheduler_config.json"))
        elif part == "text_encoder":
            yield from _text_faults(folder)
        else:
            yield from autoencoder_node_faults(config, folder.shown(part))
    unet, inner = folder.configs.get("unet"), _latent_part(folder)
    latent = folder.configs[inner].get("latent_channels", 4) if inner else None
    if unet is not None and inner is not None and unet.get("in_channels", 4) != latent:
        yield f"unet has {unet.get('in_channels', 4)} channels, but {inner} a latent of {latent}"


def _latent_part(folder: Folder) -> str | None:
    """Where a pipeline has its autoencoder."""
    return next((part for part in ("vqvae", "vae") if part in folder.configs), None)


def _text_faults(folder: Folder) -> Iterator[str]:
    config, unet = folder.configs["text_encoder"], folder.configs["unet"]
    if config.get("model_type") != "clip_text_model":
        yield f"text_encoder/config.json: model_type is {config.get('model_type')!r}, no CLIP text"
    if config.get("hidden_size") != unet.get("cross_attention_dim", 1280):
        width = unet.get("cross_attention_dim", 1280)
        found = config.get("hidden_size")
        yield f"text_encoder/config.json: hidden_size is {found}, but the unet reads {width}"


def _autoencoder(folder: Folder) -> Imported:
    config = folder.configs[""]
    node = autoencoder_node(config)
    network = _network(folder, "", node)
    shape = (node["colours"], *(size(config.get("sample_size", 32)) or ()))
    sampler = {"_target_": "unnoise.networks.autoencoders.Reconstruction", "drawn": False}
    model = AutoencoderModel(network, shape)
    return Imported(model, {"network": node, "sampler": sampler}, [])


def _network(folder: Folder, part: str, node: dict[str, Any]) -> ConvolutionalAutoencoder:
    """An autoencoder with the weights of a part."""
    with torch.device("meta"):
        outline: ConvolutionalAutoencoder = instantiate(node, MODEL)
    state = _translated(folder, part, partial(from_diffusers, autoencoder=outline))
    network: ConvolutionalAutoencoder = _loaded(folder, part, node, state)
    return network


def _pipeline(folder: Folder, run: Path) -> Imported:
    configs, part = folder.configs, _latent_part(folder)
    vae = None if part is None else configs[part]
    node, drawing = unet_node(configs["unet"]), drawing_of(configs["scheduler"], vae is None)
    twice = 2 if drawing.learned_variance else 1
    if node["outputs"] != twice * node["shape"][0]:
        learned = "a learned variance" if twice == 2 else "variance_type learned_range"
        raise ValueError(
            f"{folder.path}: the unet has {node['outputs']} outputs for {node['shape'][0]} "
            f"channels, which {learned} would have to go with"
        )
    with torch.device("meta"):
        outline = instantiate(node, MODEL)
    state = _translated(folder, "unet", partial(unet_from_diffusers, unet=outline))
    parts: dict[str, Any] = {
        "network": _loaded(folder, "unet", node, state),
        "prediction": instantiate(drawing.prediction, MODEL),
        "schedule": instantiate(drawing.schedule, MODEL),
        "learned_variance": drawing.learned_variance,
        "conditioning": None,
        "autoencoder": None,
    }
    nodes: dict[str, Any] = {
        "network": node,
        "prediction": drawing.prediction,
        "schedule": drawing.schedule,
        "sampler": drawing.sampler,
        "learned_variance": drawing.learned_variance,
        "autoencoder": None,
    }
    shape = tuple(node["shape"])
    files: list[Path] = []
    if "text_encoder" in configs:
        files, place = folder.text_files, str((run / TEXT_ENCODER).absolute())
        width = configs["text_encoder"]["hidden_size"]
        encoder = {"_target_": f"{CONDITIONING}ClipEncoder", "name": place, "width": width}
        nodes["conditioning"] = {"_target_": f"{CONDITIONING}FrozenText", "encoder": encoder}
        parts["conditioning"] = instantiate(nodes["conditioning"], MODEL)
        nodes["sampler"]["guidance"]["scale"] = SCALE
    if vae is not None and part is not None:
        inner = autoencoder_node(vae)
        network = _network(folder, part, inner)
        name = f"{weights_digest(network.state_dict())}-{digest(inner, 8)}"
        trained: dict[str, Any] = {
            "_target_": "unnoise.networks.autoencoders.Trained",
            "network": inner,
            "digest": name,
            "run": str(run.absolute()),
        }
        nodes["autoencoder"] = trained
        parts["autoencoder"] = instantiate({**trained, "network": network}, MODEL)
        factor = 2**network.halvings
        shape = (network.colours, *(side * factor for side in shape[1:]))
    model = DiffusionModel.of(parts, shape)
    if vae is not None:
        one = torch.ones(node["shape"][0])
        model.codec.set_scale(0 * one, one / float(vae.get("scaling_factor", 0.18215)))  # type: ignore[operator]
    return Imported(model, nodes, drawing.remarks, files)


def _translated(folder: Folder, part: str, translate: Any) -> dict[str, Tensor]:
    path = folder.file(part, WEIGHTS)
    try:
        found: dict[str, Tensor] = translate(folder.weights(part))
    except UnsafeFile:
        raise
    except (KeyError, ValueError, RuntimeError) as error:
        words = error.args[0] if error.args else error
        raise UnsafeFile(path, f"is not of the network that its config says: {words}") from error
    if odd := [name for name, value in found.items() if not bool(value.isfinite().all())]:
        raise UnsafeFile(path, f"has weights that are not finite: {odd[0]}")
    return found


def _loaded(folder: Folder, part: str, node: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """The network of a node with weights that are known to fit."""
    check_fit(folder.file(part, WEIGHTS), lambda: instantiate(node, MODEL), state)
    with torch.random.fork_rng(devices=[]):
        network = instantiate(node, MODEL)
    network.load_state_dict(state)
    return network.eval()
