"""Files of pixels: names, listings, bytes by offset, on local disks and object stores."""
