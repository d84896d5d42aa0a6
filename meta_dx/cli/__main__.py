"""``python -m meta_dx.cli`` is ``meta-dx``."""

from meta_dx.cli import main

main()
