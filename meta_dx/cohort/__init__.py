"""Room of meta_dx."""
