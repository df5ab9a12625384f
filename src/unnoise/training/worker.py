"""One rank of a run whose others the same command starts: python -m unnoise.training.worker."""

import json
import sys
import traceback
from pathlib import Path

from unnoise.distributed.memory import keep_memory
from unnoise.distributed.signals import end_on_signals, leave


def main() -> int:
    """Train by the orders in the file named on the command line; returns the exit status."""
    end_on_signals()
    keep_memory()
    from unnoise.config.problems import ConfigError
    from unnoise.distributed.environment import place
    from unnoise.distributed.group import RankLost, RankTimeout
    from unnoise.distributed.launcher import LOST, TIMED_OUT
    from unnoise.training.callbacks.checkpoints import NotFinite, NotSaved
    from unnoise.training.failures import explanation

    config, *paths, origin = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run_dir, checkpoint = (None if path is None else Path(path) for path in paths)
    try:
        from unnoise.training.loop import fit
        from unnoise.training.start import prepared

        fit(prepared(config), config, run_dir, checkpoint, origin)
    except (ConfigError, RankTimeout) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else TIMED_OUT
    except RankLost:
        return LOST  # why it is lost, the supervisor knows
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        if place().rank == 0 or not isinstance(error, NotFinite | NotSaved):  # every rank has those
            print(explanation(error, config) or traceback.format_exc(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    if status:
        leave(status)
