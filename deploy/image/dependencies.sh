#!/bin/sh
# Installs what lenspipe with these extras depends on, and not lenspipe: dependencies.sh EXTRA,EXTRA
# Run by the Dockerfile, in a folder with pyproject.toml and a package without code.
set -eu

pip install --no-compile ".[$1]"
pip uninstall --yes lenspipe

# What only their own authors use. astropy and h5py name their tests when they are imported.
packages=/opt/lenspipe/lib/python3.11/site-packages
find "$packages" -type d -name tests -not -path '*/astropy/tests' -not -path '*/h5py/tests' -prune \
    -exec rm -r {} +
rm -r "$packages/pyarrow/include" "$packages/ray/jars"

# On a read-only root file system Python can't keep what it compiles. A template with no valid Python in
# it stays as it is.
/opt/lenspipe/bin/python -m compileall -q -j 0 "$packages" || true
