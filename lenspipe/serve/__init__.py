"""A run over HTTP: protocols of the IVOA, JSON and pages; and the grades given there."""
