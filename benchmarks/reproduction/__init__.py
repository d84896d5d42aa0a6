"""What ``benchmarks/reproduce.py`` is made of: Omniglot, the papers' recipes, one resumable loop, the page."""
