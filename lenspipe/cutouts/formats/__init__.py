"""Cutout readers, one file per format; the file's name is the reader's name."""
