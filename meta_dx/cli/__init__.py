"""The console script ``meta-dx``: commands for people and, with ``--json``, for programs.

Exit status: 0 done, 2 wrong use or wrong input with one clear line on stderr, 1 a fault of ours. With ``--json``
one object goes to stdout and nothing else; logs go to stderr.
"""

from __future__ import annotations

import logging
import os
import sys


def main() -> None:
    """Run the command line."""
    # The commands print one table or one object; libraries that chat on import must not spoil it.
    os.environ.setdefault("MPLBACKEND", "Agg")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("meta_dx").setLevel(logging.INFO)
    from meta_dx.cli.app import run

    sys.exit(run(sys.argv[1:]))
