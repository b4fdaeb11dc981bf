"""What can be refused before a pixel is read: bands, pixel scale, size, zero point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lenspipe.contracts import InputSpec
from lenspipe.cutouts.base import BandInfo, ReaderOptions
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.files.paths import out_of_number
from lenspipe.cutouts.geometry import same_scale, window
from lenspipe.cutouts.photometric import constant_of
from lenspipe.errors import InputError


def check_inputs(
    options: ReaderOptions, infos: Mapping[str, BandInfo], inputs: Sequence[InputSpec]
) -> None:
    """InputError where what `describe` found cannot serve every input."""
    require_bands(inputs, infos)
    for spec in inputs:
        for band in spec.bands:
            native = native_scale(options, band, infos[band].pixel_scale_arcsec)
            check_scale(options.resample, spec, band, native)
            _check_size(options, spec, band, native, infos[band].size_pixels)
            _check_zero_point(options, spec, band)


def native_scale(options: ReaderOptions, band: str, in_files: float | None) -> float:
    """Pixel scale (arcsec) of a band: the files' own, or the survey file's where they lack one.

    InputError where neither says it, or both do and differ.
    """
    stated = options.pixel_scale_arcsec
    if in_files is None and stated is None:
        raise InputError("cutouts.pixel_scale_arcsec", "a value, as the files have none", "none")
    if in_files is not None and stated is not None and not same_scale(in_files, stated):
        raise InputError(
            "cutouts.pixel_scale_arcsec", f"{in_files:.5g} as in the files of band {band}", stated
        )
    return in_files if in_files is not None else float(stated or 0.0)


def check_scale(may_resample: bool, spec: InputSpec, band: str, native: float) -> None:
    """InputError where a band has another pixel scale than the input and may not be resampled."""
    if may_resample or same_scale(native, spec.pixel_scale_arcsec):
        return
    raise InputError(
        f"pixel scale of band {band}",
        f"{spec.pixel_scale_arcsec:.5g} arcsec of input {spec.name} within 1%"
        " (or cutouts.resample: true)",
        f"{native:.5g} arcsec",
    )


def _check_size(
    options: ReaderOptions,
    spec: InputSpec,
    band: str,
    native: float,
    size: tuple[int, int] | None,
) -> None:
    if size is None:
        return
    need = window(spec.size_pixels, spec.pixel_scale_arcsec, native).side
    found = f"{size[0]} x {size[1]} pixels"
    if min(size) < need:
        raise InputError(
            f"size of band {band}", f"at least {need} pixels for input {spec.name}", found
        )
    if max(size) > need and not options.crop:
        raise InputError(
            f"size of band {band}",
            f"{need} pixels for input {spec.name} (or cutouts.crop: true)",
            found,
        )


def _check_zero_point(options: ReaderOptions, spec: InputSpec, band: str) -> None:
    if spec.zero_point_mag is None:
        return
    if options.zero_point is None:
        raise InputError(
            "cutouts.zero_point",
            f"where zero points come from, as input {spec.name} wants {spec.zero_point_mag:g} mag",
            "none",
        )
    if options.zero_point.constant is not None:
        constant_of(options.zero_point, band)


def refuse_fits_options(options: ReaderOptions) -> None:
    """InputError where options ask a store without FITS headers for what only FITS files have."""
    asked = {
        "cutouts.zero_point.header": options.zero_point and options.zero_point.header,
        "cutouts.zero_point.exptime_header": options.zero_point
        and options.zero_point.exptime_header,
        "cutouts.mask.hdu": options.mask.hdu,
        "cutouts.mask.file": options.mask.file,
    }
    for field, value in asked.items():
        if value is not None:
            raise InputError(field, f"no such key with reader {options.reader}", value)


def require_bands(inputs: Sequence[InputSpec], there: Collection[str]) -> None:
    """InputError where an input takes a band that the reader does not have."""
    for spec in inputs:
        for band in spec.bands:
            if band not in there:
                raise InputError(
                    "cutouts.bands", f"band {band} of input {spec.name}", ", ".join(there)
                )


def order_cautions(options: ReaderOptions, pixels: Mapping[str, Listing]) -> tuple[str, ...]:
    """What may give a source the pixels of another one, in words: positions that count through
    files whose numbers would order them otherwise. pixels: the files of each band."""
    if not options.counts_files:
        return ()
    pair = out_of_number(file.path for file in next(iter(pixels.values())).files)
    if pair is None:
        return ()
    return (
        f"cutouts.row counts through the files in the order of their names, {pair[0]} before"
        f" {pair[1]}; where it was counted in the order of their numbers, give the numbers"
        " leading zeros",
    )
