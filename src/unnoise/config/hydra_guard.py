"""Folders of configs from anyone: read whole, they configure a run, and nothing of Hydra itself.

Hydra builds and calls what its own part of a config names (launcher, sweeper, callbacks, logging).
That part comes from the shipped configs, installed plugins and the command line. The files of
--config-dir and hydra.searchpath can add nothing to it: what they have of it is left out and
reported.
"""

import re
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from unnoise.config.problems import Problem
from unnoise.untrusted import UnsafeFile, yaml_in

FOLDERS = ("command-line", "hydra.searchpath in command-line", "hydra.searchpath in main")
"""Hydra's names of sources that are folders of the user."""


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader, without what files in ``FOLDERS`` have for Hydra; ``refused`` lists these."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refused: dict[Problem, None] = {}

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        repository = _Repository(self.repository, self.refused)
        parsed = OverridesParser.create().parse_overrides(overrides=overrides)
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository


class _Repository(CachingConfigRepository):
    def __init__(self, delegate: Any, refused: dict[Problem, None]) -> None:
        super().__init__(delegate)
        self.refused = refused

    def load_config(self, config_path: str) -> ConfigResult | None:
        text = self._checked(config_path)
        result = super().load_config(config_path)
        if result is not None and text is not None:
            result.header = ConfigSource._get_header_dict(text)  # Hydra's own has a byte-order mark
        if result is not None and result.provider in FOLDERS:
            for what in _strip(result, config_path):
                instead = "type it on the command line (hydra.…=…)"
                message = f"a config of one's own cannot have {what} for Hydra itself; {instead}"
                self.refused[Problem(config_path, message)] = None
        return result

    def _checked(self, config_path: str) -> str | None:
        """The text of a user's file. UnsafeFile if it is not YAML in UTF-8 with keys and values."""
        source = next((each for each in self.get_sources() if each.is_config(config_path)), None)
        if source is None or source.scheme() != "file" or source.provider not in FOLDERS:
            return None
        path = Path(source.path, source._normalize_file_name(config_path))
        text, content = yaml_in(path)
        if not text.strip():
            raise UnsafeFile(path, "is empty")
        if not isinstance(content, dict | None):
            kind = "a list" if isinstance(content, list) else "a single value"
            raise UnsafeFile(path, f"holds {kind}: a config holds keys, as in max_steps: 100")
        return text


def _strip(result: ConfigResult, config_path: str) -> list[str]:
    """Take what is for Hydra out of a config, and say what that was."""
    found = []
    if _is_hydra(config_path) or _is_hydra(result.header.get("package")):
        found.append("a file")
        result.config, result.defaults_list = OmegaConf.create({}), []
    if OmegaConf.is_dict(result.config) and "hydra" in result.config:
        found.append("the key hydra")
        OmegaConf.set_readonly(result.config, False)
        del result.config["hydra"]
    for default in list(result.defaults_list or []):
        parts = (getattr(default, name, None) for name in ("group", "path", "package"))
        if any(map(_is_hydra, parts)):
            found.append("an entry in its defaults")
            result.defaults_list.remove(default)  # type: ignore[union-attr]
    return found


def _is_hydra(name: object) -> bool:
    """Whether a path of groups or a package leads into Hydra's own part."""
    return "hydra" in re.split(r"[./@]", str(name or ""))
