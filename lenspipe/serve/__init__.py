"""A run over HTTP: IVOA protocols, a JSON interface and pages, and the grades that are given there."""
