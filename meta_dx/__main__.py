"""``python -m meta_dx`` is ``meta-dx``; ``torchrun … -m meta_dx train`` trains in several processes."""

from meta_dx.cli import main

main()
