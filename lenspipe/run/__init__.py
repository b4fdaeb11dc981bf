"""A run directory over time: opened, locked, committed to, resumed, told of, proved."""
