from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from lenspipe.cutouts.fits.cutting import Place, cut
from lenspipe.cutouts.fits.fitsfile import open_fits

LEFT_OVER = -1e30  # what the memory held before


@pytest.mark.parametrize("plain", [True, False])
def test_stamps_are_windows_of_the_padded_image(
    plain: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every pixel outside is told and 0, every pixel inside is the image's, none is left over."""
    path = tmp_path_factory.mktemp("cut") / "image.fits"

    @settings(max_examples=25, deadline=None)
    @given(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.integers(1, 10),
        st.sampled_from([0.0, 10.0, 1e6]),
        st.randoms(use_true_random=False),
    )
    def check(shape: tuple[int, int], side: int, request_bytes: float, random: Random) -> None:
        image = np.arange(1, shape[0] * shape[1] + 1, dtype=np.float32).reshape(shape)
        write(path, image, plain)
        pad = side + 1  # every origin from which a stamp touches the image, and one more
        origins = list(np.ndindex(shape[0] + pad + 1, shape[1] + pad + 1))
        random.shuffle(origins)
        y, x = np.array(origins).T
        rows = np.arange(len(origins))[::-1].copy()
        place = Place(rows, x - pad, y - pad)
        out = np.full((len(origins), side, side), LEFT_OVER, np.float32)
        with open_fits(str(path)) as file:
            opened = file.image(None)
            _, broken = cut(opened, place, out, request_bytes)
        assert not broken
        windows = sliding_window_view(np.pad(image, pad), (side, side))[y, x]
        beyond = sliding_window_view(np.pad(image, pad) == 0, (side, side))[y, x]
        np.testing.assert_array_equal(out[rows], windows)
        np.testing.assert_array_equal(place.outside(side, shape), beyond)
        np.testing.assert_array_equal(place.leaving(side, shape), beyond.any(axis=(1, 2)))

    check()


def write(path: Path, image: np.ndarray, plain: bool) -> None:
    """A plain image, or one whose BSCALE card keeps it from being used as it lies in the file."""
    unit = fits.PrimaryHDU(image if plain else image * 2)
    if not plain:
        unit.header["BSCALE"] = 0.5
    path.unlink(missing_ok=True)
    unit.writeto(path)
