"""unnoise-import: make a run directory of a model that diffusers wrote."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]
from pydantic import Field

from unnoise.cli.request import Request, data_fault, run_request
from unnoise.config.compose import check_command_line
from unnoise.config.faults import Look
from unnoise.config.identity import OUTPUTS
from unnoise.config.problems import ConfigError, Problem
from unnoise.data.source import ImageSource
from unnoise.files import folder_fault, folder_in_one_piece, full_fault
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.models.hub.importing import Imported, import_folder
from unnoise.models.hub.kept import HANDED, keep
from unnoise.models.hub.remote import fetched, missing
from unnoise.runs.averaged import weights_digest
from unnoise.runs.layout import shown

GROUPS = ("network", "schedule", "prediction", "sampler", "conditioning", "data")
NO_DATA = "(no data were given to unnoise-import)"
EXPERIMENT = "experiment/imported.yaml"


@dataclass(frozen=True, kw_only=True)
class Import(Request):
    """What is to be read: one field for each key of ``conf/import.yaml``."""

    folder: Annotated[str, Look(missing)]
    data: Annotated[ImageSource | None, Look(data_fault)]
    name: Annotated[str | None, Field(pattern=r"^[\w.-]+$")]
    out: Annotated[str | None, Look(full_fault)]

    def problems(self) -> Iterator[Problem]:
        """Whether there is a place for the run."""
        if self.out is None and (fault := folder_fault(OUTPUTS)):
            yield Problem("out", fault)

    def answer(self, config: dict[str, Any]) -> None:
        """Read all, check all, write, and say where."""
        source = fetched(self.folder).resolve()
        name = self.name or re.sub(r"[^\w.-]+", "_", Path(self.folder).resolve().name)
        imported = import_folder(source, Path(self.out or OUTPUTS / name))
        model = imported.model
        if self.data is not None and tuple(self.data.shape) != model.shape:
            wanted = f"data.image_size=[{model.shape[1]},{model.shape[2]}]"
            of = f"the folder draws {model.shape}, but the data are {tuple(self.data.shape)}"
            raise ValueError(f"data: {of}: try {wanted}")
        found = weights_digest(model.state_dict())
        out = Path(self.out or OUTPUTS / name / f"imported_{found[:8]}").expanduser()
        if fault := full_fault(out):
            raise ValueError(f"out: {fault}")
        imported.placed(out)
        experiment = _experiment(imported, name, config["data"] or _no_data(model.shape))
        whole = _composed(experiment) | {"autoencoder": imported.nodes.get("autoencoder")}
        if isinstance(model, AutoencoderModel):
            del whole["autoencoder"]
        about = {"folder": source.name, "digest": found, "remarks": imported.remarks}
        with folder_in_one_piece(out) as run:
            keep(run, model, whole, imported.nodes["network"], about)
            imported.copy(run)
            (run / EXPERIMENT).parent.mkdir()
            (run / EXPERIMENT).write_text(_text(experiment, imported, out), encoding="utf-8")
        numbers = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name}: {numbers:,} parameters, pictures {' × '.join(map(str, model.shape))}")
        for remark in imported.remarks:
            print(f"  otherwise than in diffusers: {remark}")
        print(f"  run        {(here := shown(out))}\n  draw       unnoise-sample run={here}")
        print(f"  fine-tune  unnoise-train --config-dir {here} experiment=imported from={here}")


def _no_data(shape: tuple[int, ...]) -> dict[str, Any]:
    size, source = [*shape[1:]], "unnoise.data.folders.ImageFolder"
    return {"_target_": source, "root": NO_DATA, "image_size": size, "channels": shape[0]}


def _experiment(imported: Imported, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """The overrides of a run of unnoise-train with this model."""
    network = {k: v for k, v in imported.nodes["network"].items() if k not in HANDED}
    nodes = imported.nodes | {"network": network, "data": data, "name": name}
    nodes.pop("autoencoder", None)
    groups: list[Any] = [{f"override /{key}": None} for key in GROUPS if key in nodes]
    if isinstance(imported.model, AutoencoderModel):
        groups = [{"override /family": "autoencoder"}, *groups]
    return {"defaults": groups, **nodes}


def _text(experiment: dict[str, Any], imported: Imported, out: Path) -> str:
    """The experiment as a file; in a latent, with the autoencoder of the run itself."""
    more = dict(experiment)
    if isinstance(imported.nodes.get("autoencoder"), dict):
        more["defaults"] = [*more["defaults"], {"override /autoencoder": "trained"}]
        more |= {"autoencoder": {"run": str(out.absolute())}}
    text: str = yaml.safe_dump(more, sort_keys=False, allow_unicode=True)
    return f"# @package _global_\n{text}"


def _composed(experiment: dict[str, Any]) -> dict[str, Any]:
    """The whole config of the run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / EXPERIMENT
        path.parent.mkdir()
        text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
        path.write_text(f"# @package _global_\n{text}", encoding="utf-8")
        config, found = check_command_line("train", ["experiment=imported"], [folder], sweep=False)
    if config is None or found:
        raise ConfigError("\n".join(map(str, found)))
    return config


def main() -> None:
    """The command's entry point."""
    run_request("import", Import)
