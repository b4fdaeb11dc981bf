"""The survey file of the simulated sky."""

from __future__ import annotations

from collections.abc import Sequence

from training.simulate.catalogue import NOT_MEASURED
from training.simulate.tiles import BAD_BITS

_TEXT = """\
name: demo
sources:
  path: catalogue/
  columns: {{id: object_id, ra: ra, dec: dec}}
  missing_values: [{missing}]
  keep_columns: [g_mag, r_mag, i_mag]
cuts:
  imaged: n_frames > 0
  bright_enough: i_mag < 21.5
  red: g_mag - i_mag BETWEEN 1.2 AND 3.6
  extended: i_psf_mag - i_kron_mag > 0.05
photometry:
  model: ps1-photometry
  keep: {{fraction: 0.5}}
cutouts:
  reader: coadd
  tiles: tiles/*.fits*
  bands: {{{bands}}}
  zero_point: {{header: MAGZERO}}
  mask: {{hdu: MASK, bits: [{bits}]}}
ensemble: ps1-gri
candidates: {{fpr: 1.0e-3}}
output: ../run/
runtime: {{failure_limit: 0.03}}
"""


def survey_file(bands: Sequence[str]) -> str:
    """`survey.yaml`: paths are relative to the sky's folder, where it lies."""
    return _TEXT.format(
        missing=NOT_MEASURED,
        bands=", ".join(f'{band}: "{{tile}}_{band}.fits"' for band in bands),
        bits=", ".join(str(bit) for bit in BAD_BITS),
    )
