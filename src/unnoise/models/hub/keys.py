"""Configs of diffusers: what is known of their keys, so that nothing unknown passes for nothing."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unnoise.config.problems import did_you_mean


@dataclass(frozen=True)
class Keys:
    """The keys of a class of diffusers, with the default that a config without them stands for.

    Args:
        free: key to default; any value is read.
        fixed: key to the values that mean what is done here, the default first.
    """

    free: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def faults(self, config: Mapping[str, Any], file: str) -> Iterator[str]:
        """What of a config cannot be done here. A key that is unknown may be null or false."""
        for key, value in config.items():
            if key.startswith("_") or key in self.free:
                continue
            if key not in self.fixed:
                if value is not None and value is not False:
                    near = did_you_mean(key, [*self.free, *self.fixed])
                    yield f"{file}: {key} {_shown(value)} is not known here{near}"
            elif not any(value == each and type(value) is type(each) for each in self.fixed[key]):
                here = " or ".join(_shown(each) for each in self.fixed[key])
                yield f"{file}: {key} is {_shown(value)}, but here only {here} can be done"

    def filled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The free keys, with defaults for those that a config lacks."""
        return {key: config.get(key, default) for key, default in self.free.items()}


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
