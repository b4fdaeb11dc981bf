from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.cutouts.cutting import Place, cut
from lenspipe.cutouts.fitsfile import open_fits

LEFT_OVER = -1e30  # what the memory held before


@pytest.mark.parametrize("mapped", [True, False])
def test_stamps_are_windows_of_the_padded_image(
    mapped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every pixel outside is told and 0, every pixel inside is the image's, none is left over."""
    path = tmp_path_factory.mktemp("cut") / "image.fits"

    @settings(max_examples=60, deadline=None)
    @given(
        st.tuples(st.integers(1, 30), st.integers(1, 30)),
        st.integers(1, 12),
        st.lists(st.tuples(st.integers(-14, 32), st.integers(-14, 32)), min_size=1, max_size=12),
        st.sampled_from([0.0, 100.0, 1e6]),
    )
    def check(
        shape: tuple[int, int], side: int, origins: list[tuple[int, int]], request_bytes: float
    ) -> None:
        image = np.arange(1, shape[0] * shape[1] + 1, dtype=np.float32).reshape(shape)
        write(path, image, mapped)
        y0, x0 = np.array(origins).T
        rows = np.arange(len(origins))[::-1].copy()
        place = Place(rows, x0, y0)
        out = np.full((len(origins), side, side), LEFT_OVER, np.float32)
        with open_fits(str(path)) as file:
            opened = file.image(None)
            assert opened.mapped is mapped
            _, broken = cut(opened, place, out, request_bytes)
        assert not broken
        pad = 60
        padded = np.pad(image, pad)
        inside = np.pad(np.ones(shape, bool), pad)
        leaving, outside = place.leaving(side, shape), place.outside(side, shape)
        for k, (y, x) in enumerate(origins):
            window = np.s_[y + pad : y + pad + side, x + pad : x + pad + side]
            np.testing.assert_array_equal(out[rows[k]], padded[window])
            np.testing.assert_array_equal(outside[k], ~inside[window])
            assert leaving[k] == (~inside[window]).any()

    check()


def write(path: Path, image: np.ndarray, mapped: bool) -> None:
    """A plain image, or one whose BSCALE card keeps it from being used as it lies in the file."""
    unit = fits.PrimaryHDU(image if mapped else image * 2)
    if not mapped:
        unit.header["BSCALE"] = 0.5
    path.unlink(missing_ok=True)
    unit.writeto(path)
