"""Protocols over a bundle, baselines beside it on the same episodes, and the report for people."""
