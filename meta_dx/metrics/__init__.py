"""Figures of merit and their intervals: pure numpy functions, no state, no models."""
