"""Files and what refuses them: local disks and object stores, outages, rests, sorts on disk."""
