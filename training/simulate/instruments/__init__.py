"""Instruments and surveys as YAML, one file each; the file's name is the instrument's."""
