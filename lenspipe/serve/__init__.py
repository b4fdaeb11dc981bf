"""A run in the browser and over HTTP, and the grades that are given there."""
