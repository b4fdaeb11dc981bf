"""Measurements behind `lenspipe bench`: each module has one `measure` function."""
