"""FITS as the readers use it: headers and pixels without a full parse, tiles, world coordinates."""
