"""Processes of a run: Ray's servers, slots for workers, time limits, signals."""
