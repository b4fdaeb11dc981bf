"""Simulated images of a survey's galaxies, lenses and look-alikes; needs no torch and no Ray."""
