"""Every augmentation keeps to the same behaviour; a new file in the package is tested by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lenspipe import registry
from lenspipe.errors import InputError
from training import augmentations

SCALES = {"sharp": 0.1, "coarse": 0.3}
SIZES = {"sharp": 96, "coarse": 32}
BANDS = {"sharp": 1, "coarse": 3}
# Required parameters that have no default.
VALUES: dict[str, dict[str, Any]] = {"shift": {"arcsec": 0.6}}
NAMES = augmentations.names()


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plugin(name: str) -> Any:
    return registry.load(augmentations, name, "name")


def strong(name: str) -> Any:
    return plugin(name).Parameters(**VALUES.get(name, {}))


def blobs(n: int, x_arcsec: float = 0.0, y_arcsec: float = 0.0) -> dict[str, Tensor]:
    """A round source of 0.4 arcsec (sigma) at an offset from the source's pixel, of flux 1 per
    square arcsec in its middle, in every band of both inputs; no noise."""
    found = {}
    for name, step in SCALES.items():
        line = (torch.arange(SIZES[name]) - SIZES[name] // 2) * step
        square = (line[None, :] - x_arcsec) ** 2 + (line[:, None] - y_arcsec) ** 2
        image = torch.exp(-0.5 * square / 0.4**2)
        found[name] = image.expand(n, BANDS[name], -1, -1).clone()
    return found


def noisy(n: int) -> dict[str, Tensor]:
    return {
        name: image + 0.05 * torch.randn(image.shape, generator=draws(9))
        for name, image in blobs(n).items()
    }


def centroids(image: Tensor, step: float) -> Tensor:
    """(n, 2): x and y of the light in the first band, arcsec from the source's pixel."""
    light = image[:, 0].clamp(min=0.02) - 0.02
    line = (torch.arange(image.shape[-1]) - image.shape[-1] // 2) * step
    total = light.sum(dim=(1, 2))
    x = (light.sum(dim=1) * line).sum(dim=1) / total
    y = (light.sum(dim=2) * line).sum(dim=1) / total
    return torch.stack([x, y], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_finite_pixels_stay_and_the_images_are_left_alone(name: str) -> None:
    images = noisy(5)
    before = {key: image.clone() for key, image in images.items()}
    changed = plugin(name).apply(strong(name), images, SCALES, draws())
    assert list(changed) == list(images)
    for key, image in changed.items():
        assert (image.shape, image.dtype) == (before[key].shape, torch.float32)
        assert torch.isfinite(image).all()
        assert torch.equal(images[key], before[key])


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_and_sources_differ(name: str) -> None:
    images = noisy(1)
    same = {key: image.expand(16, -1, -1, -1) for key, image in images.items()}
    runs = [plugin(name).apply(strong(name), same, SCALES, draws(seed)) for seed in (1, 1, 2)]
    for key in images:
        assert torch.equal(runs[0][key], runs[1][key])
        assert not torch.equal(runs[0][key], runs[2][key])
        assert len({tuple(view.flatten().tolist()) for view in runs[0][key]}) > 4


@pytest.mark.parametrize("name", NAMES)
def test_nothing_asked_nothing_changed(name: str) -> None:
    images = noisy(4)
    still = plugin(name).apply(plugin(name).STILL, images, SCALES, draws())
    assert all(torch.equal(still[key], images[key]) for key in images)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_keeps_its_flux_where_the_file_says_so(name: str) -> None:
    """Within 2%: bicubic interpolation of a Gaussian 1.3 coarse pixels wide."""
    images = blobs(12)
    changed = plugin(name).apply(strong(name), images, SCALES, draws(3))
    ratios = torch.cat(
        [changed[k].sum(dim=(2, 3)).flatten() / images[k].sum(dim=(2, 3)).flatten() for k in images]
    )
    kept = bool((ratios - 1.0).abs().max() < 0.02)
    assert kept == plugin(name).KEEPS_FLUX or name == "noise"


@pytest.mark.parametrize("name", NAMES)
def test_inputs_on_other_pixels_show_the_same_sky(name: str) -> None:
    """Centroids in arcsec agree within a tenth of a coarse pixel."""
    images = blobs(32, x_arcsec=0.4, y_arcsec=-0.3)
    changed = plugin(name).apply(strong(name), images, SCALES, draws(4))
    sharp, coarse = (centroids(changed[key], SCALES[key]) for key in ("sharp", "coarse"))
    if name != "noise":  # whose pixels cannot agree
        assert (sharp - coarse).abs().max() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"augmentation\.1\.parameters\.typo"):
        augmentations.build([("d4", {}), (name, {**VALUES.get(name, {}), "typo": 1})])


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"augmentation\.0\.name: expected one of .*viewpoint"):
        augmentations.build([("spin", {})])
