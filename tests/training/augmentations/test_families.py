"""What each family of augmentations does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lenspipe.errors import InputError
from training import augmentations
from training.augmentations import (
    brightness,
    d4,
    noise,
    psf,
    rotate,
    shear,
    shift,
    viewpoint,
    zoom,
)
from training.augmentations._pixels import shifted_pixels, turned_pixels
from training.augmentations._warp import rotation, warp

ONE = {"image": 0.25}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(
    n: int = 1, size: int = 49, sigma: float = 2.0, x: float = 0.0, y: float = 0.0
) -> dict[str, Tensor]:
    line = torch.arange(size, dtype=torch.float32) - size // 2
    square = (line[None, :] - x) ** 2 + (line[:, None] - y) ** 2
    return {"image": torch.exp(-0.5 * square / sigma**2).expand(n, 2, -1, -1).clone()}


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (n, 2) in pixels from the source's pixel, and second moments (n, 2, 2)."""
    light = image[:, 0]
    line = torch.arange(light.shape[-1], dtype=torch.float32) - light.shape[-1] // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    place = torch.stack([x, y])  # (2, y, x)
    total = light.sum(dim=(1, 2))
    centre = torch.einsum("nyx,iyx->ni", light, place) / total[:, None]
    second = torch.einsum("nyx,iyx,jyx->nij", light, place, place) / total[:, None, None]
    return centre, second - centre[:, :, None] * centre[:, None, :]


def test_d4_is_the_eight_views() -> None:
    image = torch.arange(25.0).reshape(5, 5)
    index = turned_pixels(torch.arange(8), 5)
    found = {tuple(view.tolist()) for view in image.flatten()[index.reshape(8, -1)]}
    wanted = {
        tuple(torch.rot90(side, k).flatten().tolist())
        for k in range(4)
        for side in (image, image.flip(1))
    }
    assert found == wanted


def test_d4_about_the_source_leaves_it_in_its_pixel() -> None:
    image = torch.arange(36.0).reshape(6, 6)
    views = image.flatten()[turned_pixels(torch.arange(8), 6, about_source=True).reshape(8, -1)]
    assert (views.reshape(8, 6, 6)[:, 3, 3] == image[3, 3]).all()


def test_d4_without_transposition_keeps_rows() -> None:
    image = {"image": torch.arange(25.0).reshape(1, 1, 5, 5).expand(40, -1, -1, -1)}
    views = d4.apply(d4.Parameters(transpose=False), image, ONE, draws())["image"]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 4
    assert (views[:, 0, 2].sort(dim=1).values == image["image"][0, 0, 2]).all()


def test_a_whole_shift_repeats_the_edge() -> None:
    image = torch.arange(16.0).reshape(4, 4)
    moved = image.flatten()[shifted_pixels(torch.tensor([[1], [-2]]), 4)[0]]
    assert moved[0].tolist() == [4.0, 4.0, 4.0, 5.0]
    assert moved[3].tolist() == [12.0, 12.0, 12.0, 13.0]


def test_shifts_fill_their_reach_and_no_more() -> None:
    moved = shift.apply(shift.Parameters(arcsec=0.75), blob(400), ONE, draws())["image"]
    centre, _ = moments(moved)
    assert centre.abs().max() < 3.05  # 0.75 arcsec of 0.25 each
    assert centre.abs().max() > 2.9
    assert ((centre - centre.round()).abs() > 0.1).any()


def test_whole_shifts_of_several_inputs_need_multiples() -> None:
    images = {"a": torch.zeros(2, 1, 8, 8), "b": torch.zeros(2, 1, 8, 8)}
    p = shift.Parameters(pixels=1, whole=True)
    with pytest.raises(InputError, match=r"a ratio of 1\.5"):
        shift.apply(p, images, {"a": 0.2, "b": 0.3}, draws())


def test_a_shift_without_a_reach_is_refused() -> None:
    with pytest.raises(InputError, match="either arcsec or pixels"):
        augmentations.build([("shift", {})])


def test_rotation_turns_the_light_by_its_angle() -> None:
    turned = rotate.apply(rotate.Parameters(), blob(300, x=6.0), ONE, draws())["image"]
    centre, _ = moments(turned)
    assert torch.allclose(centre.norm(dim=1), torch.full((300,), 6.0), atol=0.05)
    quarters = torch.histc(torch.atan2(centre[:, 1], centre[:, 0]), 4, -math.pi, math.pi)
    assert quarters.min() > 50  # of 75 expected, scatter 7.5


def test_a_quarter_turn_is_exact() -> None:
    image = torch.randn(1, 2, 9, 9, generator=draws())
    quarter = rotation(torch.tensor([math.pi / 2]))
    turned = warp({"image": image}, ONE, quarter, torch.zeros(1, 2))["image"]
    assert torch.allclose(turned, torch.rot90(image, 1, (2, 3)), atol=1e-4)


def test_zoom_stretches_at_the_same_surface_brightness() -> None:
    before = blob(200)["image"]
    after = zoom.apply(zoom.Parameters(largest=1.3), {"image": before}, ONE, draws())["image"]
    width = moments(after)[1][:, 0, 0].sqrt() / 2.0
    assert width.max() == pytest.approx(1.3, abs=0.03)
    assert width.min() == pytest.approx(1 / 1.3, abs=0.03)
    assert torch.allclose(after.amax(dim=(1, 2, 3)), before.amax(dim=(1, 2, 3)), atol=1e-4)
    assert torch.allclose(
        after.sum(dim=(2, 3))[:, 0], width**2 * before.sum(dim=(2, 3))[:, 0], rtol=0.05
    )


def test_shear_makes_round_light_elliptical_and_keeps_its_area() -> None:
    after = shear.apply(shear.Parameters(degrees=20.0), blob(200), ONE, draws())["image"]
    _, second = moments(after)
    assert torch.allclose(second.det().sqrt(), torch.full((200,), 4.0), rtol=0.04)
    axes = torch.linalg.eigvalsh(second)
    # A shear by t makes the ratio of squared axes ((t + sqrt(t² + 4)) / 2)⁴.
    t = math.tan(math.radians(20.0))
    largest = ((t + math.sqrt(t * t + 4.0)) / 2.0) ** 4
    assert (axes[:, 1] / axes[:, 0]).max() == pytest.approx(largest, rel=0.05)


def test_a_viewpoint_is_one_interpolation_of_all_it_names() -> None:
    """Of a corner of light: areas follow the zoom alone, the centre the shift alone."""
    p = viewpoint.Parameters(degrees=180.0, zoom=1.2, shear_degrees=10.0, shift_arcsec=0.5)
    images = {"image": blob(150, 81, x=3.0)["image"] + 0.5 * blob(150, 81, y=3.0)["image"]}
    views = viewpoint.apply(p, images, ONE, draws())["image"]
    _, second = moments(views)
    _, before = moments(images["image"])
    area = second.det().sqrt() / before.det().sqrt()[0]
    assert area.max() == pytest.approx(1.44, abs=0.06)  # zoom squared
    assert area.min() == pytest.approx(1 / 1.44, abs=0.06)
    still = viewpoint.Parameters(mirror=False, degrees=0.0, zoom=1.0, shift_arcsec=0.5)
    moved = viewpoint.apply(still, blob(300), ONE, draws())["image"]
    assert moments(moved)[0].abs().max() == pytest.approx(2.0, abs=0.05)
    assert torch.allclose(moments(moved)[1], moments(blob(300)["image"])[1], atol=0.15)


def test_a_viewpoint_mirrors_half_of_the_time() -> None:
    hand = {"image": blob(300, x=6.0)["image"] + 0.5 * blob(300, y=6.0)["image"]}
    p = viewpoint.Parameters(degrees=0.0, zoom=1.0, shift_arcsec=0.0)
    centre, _ = moments(viewpoint.apply(p, hand, ONE, draws())["image"])
    assert 110 < (centre[:, 0] < 0).sum() < 190


def test_noise_is_measured_and_added_in_proportion() -> None:
    images = {"image": 3.0 * torch.randn(200, 1, 32, 32, generator=draws())}
    assert noise.noise_rms(images["image"]).mean().item() == pytest.approx(3.0, rel=0.03)
    noisy = noise.apply(noise.Parameters(relative=1.0), images, ONE, draws(1))["image"]
    added = (noisy - images["image"]).std(dim=(1, 2, 3))
    # The strongest draw is nearly 1; a stamp's own noise is known to a tenth from its border.
    assert added.max().item() == pytest.approx(3.0, rel=0.3)
    assert added.min().item() < 0.3


def test_blur_adds_its_width_in_quadrature() -> None:
    largest = 3.0 / psf.FWHM_PER_SIGMA  # of 3 pixels
    after = psf.apply(psf.Parameters(fwhm_arcsec=0.75), blob(300), ONE, draws())["image"]
    added = moments(after)[1][:, 0, 0] - 4.0
    assert added.max() == pytest.approx(largest**2, rel=0.05)
    assert added.min() > -1e-3
    assert torch.equal(after[:, 0], after[:, 1])


def test_blur_of_each_band_by_itself() -> None:
    p = psf.Parameters(fwhm_arcsec=0.75, bands_apart=True)
    after = psf.apply(p, blob(20), ONE, draws())["image"]
    assert ((after[:, 0] - after[:, 1]).abs().amax(dim=(1, 2)) > 1e-3).any()


def test_brightness_stays_within_its_magnitudes() -> None:
    images = {"image": torch.ones(500, 2, 4, 4)}
    both = brightness.apply(brightness.Parameters(all_mag=0.5), images, ONE, draws())["image"]
    mags = -2.5 * torch.log10(both[:, :, 0, 0])
    assert mags.abs().max() <= 0.5 + 1e-5
    assert mags.abs().max() > 0.45
    assert torch.equal(mags[:, 0], mags[:, 1])
    p = brightness.Parameters(all_mag=0.0, colour_mag=0.1)
    apart = brightness.apply(p, images, ONE, draws())["image"]
    colour = -2.5 * torch.log10(apart[:, 0, 0, 0] / apart[:, 1, 0, 0])
    assert 0.15 < colour.abs().max() <= 0.2 + 1e-5


def test_steps_follow_one_another() -> None:
    images = blob(4)
    both = augmentations.build([("shift", {"pixels": 2, "whole": True}), ("noise", {})])
    generator = draws(5)
    moved = shift.apply(shift.Parameters(pixels=2, whole=True), images, ONE, generator)
    wanted = noise.apply(noise.Parameters(), moved, ONE, generator)
    assert torch.equal(both(images, ONE, draws(5))["image"], wanted["image"])
