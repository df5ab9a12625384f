"""One rank of a run whose others the same command starts: python -m unnoise.training.worker."""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from unnoise.distributed.signals import end_on_signals, leave


def train(
    config: dict[str, Any],
    run_dir: str | None,
    checkpoint: str | None,
    origin: dict[str, Any] | None,
) -> None:
    """Train the run as this process's share of it."""
    from unnoise.training.loop import fit
    from unnoise.training.start import prepared

    run, saved = (None if path is None else Path(path) for path in (run_dir, checkpoint))
    fit(prepared(config), config, run, saved, origin)


def main() -> int:
    """Train by the orders in the file named on the command line; returns the exit status."""
    end_on_signals()
    from unnoise.config.problems import ConfigError
    from unnoise.distributed.environment import place
    from unnoise.distributed.group import RankLost, RankTimeout
    from unnoise.distributed.launcher import LOST, TIMED_OUT
    from unnoise.training.callbacks.checkpoints import NotFinite, NotSaved
    from unnoise.training.failures import explanation

    orders = json.loads(Path(sys.argv[1]).read_text())
    try:
        train(**orders)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except RankLost:
        return LOST  # why it is lost, the supervisor knows
    except RankTimeout as error:
        print(error, file=sys.stderr)
        return TIMED_OUT
    except (NotFinite, NotSaved) as error:  # every rank has it
        if place().rank == 0:
            print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        print(explanation(error, orders["config"]) or traceback.format_exc(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    if status:
        leave(status)
