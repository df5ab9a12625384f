"""The Hugging Face hub: folders that come from it and go to it."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PREFIX = "hf://"
MISSING = "the hub needs huggingface_hub: pip install 'unnoise[diffusers]'"
FILES = ("*.json", "*.safetensors", "*.yaml", "*.md", "*.png", "*.csv", "*.txt", "*SUMS")
"""What is fetched: nothing that a reader could execute."""


def fetched(name: str | Path) -> Path:
    """A folder here; one that is called hf://user/name is fetched into the hub's cache first.

    Raises:
        ValueError: huggingface_hub is missing, or the folder cannot be fetched.
    """
    if not str(name).startswith(PREFIX):
        return Path(name).expanduser()
    repository, hub = str(name).removeprefix(PREFIX), _hub()
    try:
        found: str = hub.snapshot_download(repository, allow_patterns=[*FILES])
    except Exception as error:  # of the network, the hub, the repository: no end of them
        why = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name} cannot be fetched: {type(error).__name__}: {why}") from error
    return Path(found)


def missing(name: str) -> str | None:
    """Whether a folder is not here, nor on the hub by its name."""
    there = name.startswith(PREFIX) or Path(name).expanduser().is_dir()
    return None if there else f"there is no folder {name}"


def push_fault(name: str) -> str | None:
    """Why nothing can be pushed there."""
    if find_spec("huggingface_hub") is None:
        return MISSING
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f"{name!r} is no repository: give user/name"
    return None


def push(folder: Path, name: str) -> str:
    """Upload a folder, to a private repository where there was none; returns its address.

    Raises:
        ValueError: huggingface_hub is missing, or the hub refuses it.
    """
    api = _hub().HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=name)
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        raise ValueError(f"{folder} was not pushed: {type(error).__name__}: {why}") from error
    return f"{PREFIX}{name}"


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(MISSING) from error
