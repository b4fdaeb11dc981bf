"""Chunked arrays (HDF5, Zarr): where their bytes are, which to read, how they are unpacked."""
