"""The service of a run: IVOA protocols, a JSON interface and pages, over what the run left."""
