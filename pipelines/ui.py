"""``make dagster``: the Dagster UI and its daemon on this machine's loopback, through ``workspace.yaml``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from pipelines.guard import guarded, require_room
from pipelines.instance import cohort_file, home_root, open_instance


def main() -> int:
    """Replace this process by ``dagster dev``; the UI has no login, so it is never bound to another address.

    Returns
    -------
    int
        2 when the home cannot be used; otherwise it does not return.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    os.environ["META_DX_HOME"] = str(home_root())
    os.environ["META_DX_COHORT"] = str(cohort_file())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    return guarded(lambda: _open(arguments.port), home_root())


def _open(port: int) -> int:
    from pipelines.working import end_dead_runs

    require_room(home_root())
    with open_instance() as instance:
        end_dead_runs(instance)
    sys.stderr.write(
        f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C ends it)\n"
        f"  cohort {cohort_file()}\n  home   {home_root()}\n"
    )
    # A shell that starts this in the background ignores INT and TERM for it; dagster dev would never end.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    # That 'dagster dev' has a successor is no news for whoever opens the UI.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Function `dev_command` is superseded")
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    os.execv(dagster, command)  # noqa: S606 - no shell is wanted
    return 0


if __name__ == "__main__":
    sys.exit(main())
