"""Lenses made while training: noiseless arcs put on galaxies of the training set.

Source of the rule: van Lohuizen 2022 (master's thesis, Groningen), Eq. 4.2, after Petrillo et al.
2017, arXiv:1702.07675: the arcs' peak is a fraction α of the galaxy's, uniform in 0.02 to 0.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Generator, Tensor

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from training.augmentations._pixels import gather, shifted_pixels, turned_pixels
from training.data import Examples, spec_of
from training.recipe import Merging
from training.stored import open_set

ALONE, SEVERAL = "arcs", "arcs_"  # the data set of one input; begins the names of several
GAIN = "electrons_per_flux"
Stamps = Mapping[str, Tensor]  # input name -> (n, band, y, x)


@dataclass(frozen=True)
class Arcs:
    """Lensed sources alone: convolved with the PSF, without noise and without the lens.

    images: (n, band, y, x) flux of each input. electrons_per_flux: (band,) of each input whose
    file says so: a pixel of flux f holds f times it photoelectrons.
    """

    images: dict[str, Float32[np.ndarray, "n band y x"]]
    specs: dict[str, InputSpec]
    electrons_per_flux: dict[str, Float32[np.ndarray, " band"]]

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))


def load_arcs(path: str | Path) -> Arcs:
    """A set of arcs (HDF5 or Zarr): data set `arcs`, or `arcs_NAME` for each input of several.

    Attributes `bands`, `pixel_scale_arcsec`, `zero_point_mag`, and `electrons_per_flux` where it is
    known (one number, or one per band), stand on a data set or on the file.
    """
    field = f"arcs {path}"
    with open_set(path, field) as stored:
        several = [name for name in stored.names() if name.startswith(SEVERAL)]
        sets = {name.removeprefix(SEVERAL): name for name in several}
        sets = sets or ({"image": ALONE} if ALONE in stored.names() else {})
        if not sets:
            raise InputError(field, f"a dataset `{ALONE}`", "none")
        images = {n: stored.array(array).astype(np.float32) for n, array in sets.items()}
        told = {name: stored.told(array) for name, array in sets.items()}
        specs = {name: spec_of(name, images[name], told[name], field) for name in sets}
        gains = {name: _gain(told[name], len(spec.bands)) for name, spec in specs.items()}
    for pixels in images.values():
        if not np.isfinite(pixels).all() or not (pixels.max(axis=(1, 2, 3)) > 0).all():
            raise InputError(field, "finite pixels with light in every row", "others")
    return Arcs(images, specs, {name: gain for name, gain in gains.items() if gain is not None})


def _gain(told: Mapping[str, Any], bands: int) -> Float32[np.ndarray, " band"] | None:
    if GAIN not in told:
        return None
    return np.broadcast_to(np.asarray(told[GAIN], np.float32), (bands,)).copy()


class Merger:
    """Replaces lenses of a batch by arcs on hosts."""

    def __init__(self, choice: Merging, arcs: Arcs, examples: Examples) -> None:
        """InputError: arcs of other bands, pixels or zero points, or of unknown photons that are to
        bring their noise; no hosts of the kinds; a peak looked for beyond the stamp."""
        _check_alike(arcs, examples)
        most = next(iter(arcs.specs.values())).size_pixels // 2 - 1
        if choice.search_pixels > most:
            found = choice.search_pixels
            raise InputError("merging.search_pixels", f"at most {most} on these stamps", found)
        _check_photons(choice, arcs)
        self._choice = choice
        hosts = np.flatnonzero(np.isin(examples.kinds, choice.hosts) & ~examples.positive)
        if not len(hosts):
            known = ", ".join(sorted(set(examples.kinds[~examples.positive])))
            raise InputError("merging.hosts", f"kinds out of {known}", ", ".join(choice.hosts))
        self._hosts = torch.from_numpy(hosts)
        self._arcs = {name: torch.from_numpy(pixels) for name, pixels in arcs.images.items()}
        self._gains = {n: torch.from_numpy(gain) for n, gain in arcs.electrons_per_flux.items()}
        self._steps = {name: spec.pixel_scale_arcsec for name, spec in arcs.specs.items()}
        self._channel = _channel(choice, next(iter(arcs.specs.values())))

    def rows(
        self, rows: Int64[Tensor, " batch"], labels: Float[Tensor, " batch"], generator: Generator
    ) -> tuple[Int64[Tensor, " batch"], Int64[Tensor, " merged"]]:
        """The batch's rows with hosts in the places that will be merged, and those places."""
        lenses = torch.nonzero(labels > 0.5).flatten()
        order = torch.randperm(len(lenses), generator=generator, device=rows.device)
        places = lenses[order[: round(self._choice.share * len(lenses))]]
        drawn = torch.randint(
            len(self._hosts), (len(places),), generator=generator, device=rows.device
        )
        changed = rows.clone()
        changed[places] = self._hosts.to(rows.device)[drawn]
        return changed, places

    def merge(
        self, batch: Stamps, places: Int64[Tensor, " merged"], generator: Generator
    ) -> dict[str, Tensor]:
        """Put arcs on the hosts that lie in `places` of a batch."""
        hosts = {name: images[places] for name, images in batch.items()}
        made = self._lenses(hosts, generator)
        changed = {name: images.clone() for name, images in batch.items()}
        for name, images in changed.items():
            images[places] = made[name]
        return changed

    def _lenses(self, hosts: Stamps, generator: Generator) -> dict[str, Tensor]:
        first = next(iter(hosts.values()))
        device = first.device
        total = len(next(iter(self._arcs.values())))
        drawn = torch.randint(total, (len(first),), generator=generator, device=device)
        arcs = {name: images[drawn.cpu()].to(device) for name, images in self._arcs.items()}
        arcs = _turned(arcs, generator)
        arcs = _onto_peaks(arcs, hosts, self._steps, self._choice.search_pixels)
        factor = self._factor(first, next(iter(arcs.values())), generator)
        arcs = {name: factor * images for name, images in arcs.items()}
        if self._choice.noise:
            arcs = {name: self._with_photon_noise(name, a, generator) for name, a in arcs.items()}
        return {name: images + arcs[name] for name, images in hosts.items()}

    def _factor(
        self, hosts: Tensor, arcs: Tensor, generator: Generator
    ) -> Float[Tensor, "n 1 1 1"]:
        if self._choice.rule == "flux":
            return torch.ones_like(hosts[:, :1, :1, :1])
        low, high = self._choice.alpha
        drawn = torch.rand(len(hosts), generator=generator, device=hosts.device)
        return arc_factor(hosts, arcs, low + (high - low) * drawn, self._channel)

    def _with_photon_noise(self, name: str, arcs: Tensor, generator: Generator) -> Tensor:
        gain = self._gains[name]
        white = torch.randn(arcs.shape, generator=generator, device=arcs.device)
        sigma = (arcs.clamp(min=0.0) / gain.to(arcs.device)[:, None, None]).sqrt()
        return arcs + sigma * white


def arc_factor(
    hosts: Float[Tensor, "n band y x"],
    arcs: Float[Tensor, "n band y x"],
    alpha: Float[Tensor, " n"],
    channel: int | None = None,
) -> Float[Tensor, "n 1 1 1"]:
    """What the arcs s are multiplied by in m = l + s · max(l) · α / max(s) (van Lohuizen 2022,
    Eq. 4.2): max(l) · α / max(s), maxima within a stamp.

    channel: the band whose maxima count, so that the arcs keep their colours; None: all bands.
    """
    bands = slice(None) if channel is None else slice(channel, channel + 1)
    brightest = hosts[:, bands].amax(dim=(1, 2, 3))
    factor: Tensor = brightest * alpha / arcs[:, bands].amax(dim=(1, 2, 3))
    return factor[:, None, None, None]


def _turned(arcs: Stamps, generator: Generator) -> dict[str, Tensor]:
    """Each stamp in one of the square's eight symmetries about the pixel size // 2, where the
    deflector is, the same in every input."""
    first = next(iter(arcs.values()))
    element = torch.randint(8, (len(first),), generator=generator, device=first.device)
    return {
        name: gather(images, turned_pixels(element, images.shape[-1], about_source=True))
        for name, images in arcs.items()
    }


def _onto_peaks(
    arcs: Stamps, hosts: Stamps, steps: Mapping[str, float], search: int
) -> dict[str, Tensor]:
    """`arcs` moved by whole pixels onto the hosts' peaks, which are sought in the first input."""
    name, first = next(iter(hosts.items()))
    offset = peak_offset(first, search)  # (2, n), pixels of the first input
    moved = {}
    for key, images in arcs.items():
        own = torch.round(offset * (steps[name] / steps[key])).to(torch.int64)
        moved[key] = gather(images, shifted_pixels(-own, images.shape[-1]))
    return moved


def peak_offset(images: Float[Tensor, "n band y x"], search: int) -> Int64[Tensor, "2 n"]:
    """Rows and columns from the pixel size // 2 to the brightest within `search` pixels of it."""
    middle, side = images.shape[-1] // 2, 2 * search + 1
    core = images.sum(dim=1)[:, middle - search :, middle - search :][:, :side, :side]
    flat = core.flatten(1).argmax(dim=1)
    return torch.stack([flat // side - search, flat % side - search])


def _channel(choice: Merging, spec: InputSpec) -> int | None:
    if choice.band is None:
        return None
    if choice.band not in spec.bands:
        raise InputError("merging.band", f"one of {', '.join(spec.bands)}", repr(choice.band))
    return spec.bands.index(choice.band)


def _check_alike(arcs: Arcs, examples: Examples) -> None:
    if arcs.specs != dict(examples.specs):
        raise InputError(
            "arcs", f"pixels as the training set's, {dict(examples.specs)}", f"{arcs.specs}"
        )


def _check_photons(choice: Merging, arcs: Arcs) -> None:
    unknown = sorted(set(arcs.images) - set(arcs.electrons_per_flux))
    if choice.noise and unknown:
        expected = f"false, or arcs whose file says `{GAIN}`"
        raise InputError("merging.noise", expected, f"true, and none for {', '.join(unknown)}")
