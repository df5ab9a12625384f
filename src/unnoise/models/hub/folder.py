"""Folders of diffusers, from anyone: their JSON, and their weights in safetensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.untrusted import UnsafeFile, load_json, load_safetensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
NETWORKS = ("AutoencoderKL", "VQModel", "UNet2DModel", "UNet2DConditionModel")
TEXT = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The parts of a pipeline that reads captions; their files stay as they are."""
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of Stable Diffusion that draw nothing."""
PIPELINES: dict[str, dict[str, tuple[str, ...]]] = {
    "DDPMPipeline": {"unet": ("UNet2DModel",)},
    "DDIMPipeline": {"unet": ("UNet2DModel",)},
    "LDMPipeline": {"unet": ("UNet2DModel",), "vqvae": ("AutoencoderKL",)},
    "StableDiffusionPipeline": {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)},
}
"""The networks of each pipeline, by their folders, and the classes that they may have."""


@dataclass(frozen=True)
class Folder:
    """A folder of diffusers: a pipeline, or an autoencoder alone.

    Args:
        path: of it.
        name: of the class.
        configs: of the parts, by the names of their folders; an autoencoder alone has "".
    """

    path: Path
    name: str
    configs: Mapping[str, dict[str, Any]]

    def file(self, part: str, name: str) -> Path:
        """In the folder of a part, or where that is not there, beside the index."""
        inside = self.path / part
        return (inside if inside.is_dir() else self.path) / name

    def shown(self, part: str, name: str = "config.json") -> str:
        """A file of a part as a message names it."""
        return str(self.file(part, name).relative_to(self.path))

    @property
    def text_files(self) -> list[Path]:
        """What reads captions: configs, words and weights, but nothing that could be code.

        Raises:
            FileNotFoundError: there is no text encoder.
        """
        found = [path for part in TEXT for path in sorted((self.path / part).glob("*"))]
        kept = [path for path in found if path.suffix in (".json", ".txt", ".safetensors")]
        names = {path.name for path in kept}
        if missing := sorted({"config.json", "model.safetensors", "tokenizer_config.json"} - names):
            where = f"{self.path / 'text_encoder'} and {self.path / 'tokenizer'}"
            raise FileNotFoundError(f"there is no {missing[0]} in {where}: the folder is not whole")
        return kept

    def weights(self, part: str) -> dict[str, Tensor]:
        """Those of a part, in float32.

        Raises:
            UnsafeFile: there are none in safetensors, or the file is cut off.
        """
        path = self.file(part, WEIGHTS)
        if not path.is_file():
            raise UnsafeFile(path, _why_not(path))
        tensors, _ = load_safetensors(path)
        return {name: value.float() for name, value in tensors.items()}


def read_folder(path: Path) -> Folder:
    """The configs of a folder, once it is known to be one that can be read here.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks a file.
        ValueError: it is of another kind; UnsafeFile for a damaged file.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    index = path / "model_index.json"
    if not index.is_file():
        alone = path / "config.json"
        if not alone.is_file():
            raise FileNotFoundError(f"{path} has neither model_index.json nor config.json")
        config = _config(alone)
        if (name := config.get("_class_name")) not in ("AutoencoderKL", "VQModel"):
            known = "an AutoencoderKL, a VQModel or a whole pipeline"
            raise ValueError(f"{alone} is of {name}: give {known}")
        return Folder(path, str(name), {"": config})
    said = _config(index)
    name = said.get("_class_name")
    if name not in PIPELINES:
        raise ValueError(f"{index} is of {name}, but here only {', '.join(PIPELINES)} can be read")
    folder = Folder(path, str(name), {})
    if faults := list(_parts(said, str(name))):
        raise ValueError(f"{index}: {'; '.join(faults)}")
    files = dict.fromkeys(PIPELINES[str(name)], "config.json")
    if str(name) == "StableDiffusionPipeline":
        _ = folder.text_files
    files["scheduler"] = "scheduler_config.json"
    found = {part: folder.file(part, file) for part, file in files.items()}
    if missing := [str(file) for file in found.values() if not file.is_file()]:
        raise FileNotFoundError(f"{path} is not whole: there is no {' and no '.join(missing)}")
    configs = {part: _config(file) for part, file in found.items()}
    if str(name) == "StableDiffusionPipeline":
        configs["text_encoder"] = _config(folder.path / "text_encoder" / "config.json")
    for part in PIPELINES[str(name)]:
        own = configs[part].setdefault("_class_name", said[part][1])
        if own != said[part][1]:
            raise ValueError(f"{index} says that {part} is {said[part][1]}, its config {own}")
    configs["scheduler"].setdefault("_class_name", said["scheduler"][1])
    return Folder(path, str(name), configs)


def _parts(said: Mapping[str, Any], name: str) -> Iterator[str]:
    """What of an index is not as a pipeline of that name should be."""
    wanted = PIPELINES[name] | (TEXT if name == "StableDiffusionPipeline" else {})
    for part in (*wanted, "scheduler"):
        entry = said.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            yield f"{part} is {entry!r}, not a library and a class"
        elif part in wanted and entry[1] not in wanted[part]:
            yield f"{part} is of {entry[1]}, but here only {' or '.join(wanted[part])} can be read"
    others = {key for key in said if not key.startswith("_")} - {*wanted, "scheduler"}
    if odd := sorted(key for key in others if isinstance(said[key], list) and key not in UNUSED):
        yield f"the part {odd[0]} is not known here"


def _config(path: Path) -> dict[str, Any]:
    found = load_json(path)
    if not isinstance(found, dict):
        raise UnsafeFile(path, "holds no config")
    return found


def _why_not(path: Path) -> str:
    pickle = path.with_suffix(".bin")
    if pickle.is_file():
        return (
            "is not there, but a .bin, a pickle, which can run anything: whoever trusts it can "
            "save it anew with diffusers: pipeline.save_pretrained(folder, safe_serialization=True)"
        )
    if path.with_name(f"{WEIGHTS}.index.json").is_file():
        return "is in several parts: save it in one, by max_shard_size"
    return "is not there: the folder is not whole"
