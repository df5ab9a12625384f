"""One rank of a run whose other ranks the same command has started: python -m unnoise.cli.rank."""

import json
import sys
from pathlib import Path
from typing import Any

from unnoise.cli.config import ConfigError


def train(
    config: dict[str, Any],
    run_dir: str | None,
    checkpoint: str | None,
    origin: dict[str, Any] | None,
) -> None:
    """Train the run as this process's share of it."""
    from unnoise.cli.train import experiment_of
    from unnoise.training.launch import fit

    fit(
        experiment_of(config),
        config,
        None if run_dir is None else Path(run_dir),
        None if checkpoint is None else Path(checkpoint),
        origin,
    )


if __name__ == "__main__":
    try:
        train(**json.loads(Path(sys.argv[1]).read_text()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
