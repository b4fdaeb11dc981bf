"""Models: cards, sessions, normalisation, ensembles, calibration, explanation."""
