"""Arcs on hosts, against Eq. 4.2 of van Lohuizen 2022."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from training.data import Examples
from training.merging import Arcs, Merger, arc_factor, load_arcs, peak_offset
from training.recipe import Merging

SPEC = InputSpec("image", ("g", "r"), 16, 0.25, 25.0)
KINDS = np.array(["lens"] * 4 + ["galaxy"] * 6 + ["star"] * 6)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hosts() -> Examples:
    images = np.random.default_rng(0).normal(0.0, 0.1, (16, 2, 16, 16)).astype(np.float32)
    images[:, :, 8, 8] += 10.0 + np.arange(16)[:, None]
    return Examples(
        {"image": images}, (KINDS == "lens").astype(np.uint8), KINDS, "t", "", specs={"image": SPEC}
    )


def arcs(n: int = 5, gain: float | None = None) -> Arcs:
    images = np.zeros((n, 2, 16, 16), np.float32)
    images[:, 0, 4, 8], images[:, 1, 4, 8] = 4.0, 2.0
    gains = {} if gain is None else {"image": np.full(2, gain, np.float32)}
    return Arcs({"image": images}, {"image": SPEC}, gains)


def merged(choice: Merging, given: Arcs, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of twelve lenses of a batch after merging, and of their hosts."""
    examples, generator = hosts(), draws(seed)
    merger = Merger(choice, given, examples)
    rows, places = merger.rows(torch.zeros(12, dtype=torch.int64), torch.ones(12), generator)
    batch = torch.from_numpy(examples.inputs["image"])[rows]
    return merger.merge({"image": batch}, places, generator)["image"], batch


def test_the_equation() -> None:
    """m = l + s · max(l) · α / max(s), by hand in numpy, and in the batches that training sees."""
    draw = np.random.default_rng(1)
    galaxy, arc = draw.random((3, 2, 8, 8)), draw.random((3, 2, 8, 8))
    alpha = np.array([0.02, 0.1, 0.3])
    hosts, arcs_, drawn = (torch.from_numpy(array) for array in (galaxy, arc, alpha))
    found = (hosts + arc_factor(hosts, arcs_, drawn) * arcs_).numpy()
    for k in range(3):
        wanted = galaxy[k] + arc[k] * galaxy[k].max() * alpha[k] / arc[k].max()
        np.testing.assert_allclose(found[k], wanted, rtol=1e-12)
    one = (hosts + arc_factor(hosts, arcs_, drawn, channel=1) * arcs_).numpy()
    wanted = galaxy[2] + arc[2] * galaxy[2, 1].max() * 0.3 / arc[2, 1].max()
    np.testing.assert_allclose(one[2], wanted, rtol=1e-12)
    choice = Merging(hosts=("galaxy",), share=1.0, noise=False, alpha=(0.25, 0.25))
    images, before = merged(choice, arcs())
    # A point of 4 in g and 2 in r: its peak becomes a quarter of the host's, its colour stays.
    added = (images - before).amax(dim=(2, 3))
    torch.testing.assert_close(added[:, 0], 0.25 * before.amax(dim=(1, 2, 3)))
    torch.testing.assert_close(added[:, 1], added[:, 0] / 2)


@pytest.mark.parametrize("size", [16, 17])
def test_the_deflector_of_the_arcs_comes_onto_the_peak_of_the_host(size: int) -> None:
    """Point arcs in the deflector's pixel, size // 2, in all eight turns of even and odd stamps."""
    spec = InputSpec("image", ("g", "r"), size, 0.25, 25.0)
    host, light = np.zeros((2, 16, 2, size, size), np.float32)
    host[:, :, size // 2 + 1, size // 2 - 2] = 10.0
    light[:, :, size // 2, size // 2] = 1.0
    beside = light.copy()
    beside[:, :, size // 2 - 3, size // 2 + 1] = 0.5
    examples = Examples(
        {"image": host}, (KINDS == "lens").astype(np.uint8), KINDS, "t", "", specs={"image": spec}
    )
    choice = Merging(hosts=("galaxy",), share=1.0, noise=False)
    merger = Merger(choice, Arcs({"image": beside}, {"image": spec}, {}), examples)
    batch = {"image": torch.from_numpy(host).repeat(12, 1, 1, 1)}
    places = torch.arange(192)
    added = (merger.merge(batch, places, draws())["image"] - batch["image"])[:, 0]
    brightest = added.flatten(1).argmax(dim=1)
    assert set(brightest.tolist()) == {(size // 2 + 1) * size + size // 2 - 2}
    second = added.flatten(1).scatter(1, brightest[:, None], 0.0).argmax(dim=1)
    turns = {(k // size - size // 2 - 1, k % size - size // 2 + 2) for k in second.tolist()}
    assert turns == {(y * a, x * b) for y, x in ((3, 1), (1, 3)) for a in (1, -1) for b in (1, -1)}


def test_merged_arcs_peak_between_the_ends_of_alpha_and_keep_their_colour() -> None:
    images, before = merged(Merging(hosts=("galaxy",), share=1.0, noise=False), arcs())
    added = (images - before).amax(dim=(2, 3))  # (n, band)
    fraction = added[:, 0] / before.amax(dim=(1, 2, 3))
    assert 0.02 <= fraction.min() < fraction.max() <= 0.3
    assert len(set(fraction.tolist())) == 12
    torch.testing.assert_close(added[:, 1], added[:, 0] / 2.0, rtol=1e-4, atol=1e-5)


def test_only_the_hosts_and_the_share_that_were_asked_for() -> None:
    examples = hosts()
    merger = Merger(Merging(hosts=("galaxy",), share=0.5, noise=False), arcs(), examples)
    labels = torch.tensor([1.0] * 8 + [0.0] * 8)
    asked = torch.arange(16)
    rows, places = merger.rows(asked, labels, draws())
    assert len(places) == 4
    assert (labels[places] == 1.0).all()
    assert set(KINDS[rows[places]]) == {"galaxy"}
    kept = torch.ones(16, dtype=torch.bool)
    kept[places] = False
    assert torch.equal(rows[kept], asked[kept])


def test_true_flux_with_photon_noise() -> None:
    noiseless = Merging(hosts=("galaxy",), share=1.0, rule="flux", noise=False)
    quiet, before = merged(noiseless, arcs())
    assert (quiet - before).sum(dim=(1, 2, 3)).numpy() == pytest.approx(6.0, abs=1e-3)
    found = []
    for seed in range(40):
        images, before = merged(
            Merging(hosts=("galaxy",), share=1.0, rule="flux"), arcs(gain=9.0), seed
        )
        found.append((images - before).amax(dim=(2, 3))[:, 0])
    values = torch.cat(found)  # 480 of them, scatter sqrt(4 / 9)
    assert values.mean().item() == pytest.approx(4.0, abs=0.1)
    assert values.std().item() == pytest.approx(2.0 / 3.0, rel=0.1)


def test_arcs_turn_and_follow_the_host() -> None:
    examples = hosts()
    images = torch.from_numpy(examples.inputs["image"]).roll((2, -1), dims=(2, 3))
    assert torch.equal(peak_offset(images, 3), torch.tensor([[2] * 16, [-1] * 16]))
    places = merged(Merging(hosts=("galaxy",), share=1.0, noise=False), arcs())
    flat = (places[0] - places[1])[:, 0].flatten(1).argmax(dim=1)
    assert len(set(flat.tolist())) > 2  # one arc above the middle, in several of its eight turns


def test_arcs_land_on_the_same_sky_in_every_input_with_one_factor() -> None:
    """VIS and NISP by their scales, 0.1 and 0.3 arcsec: a host one coarse pixel off its middle."""
    specs = {
        "nisp": InputSpec("nisp", ("Y",), 12, 0.3, 25.0),
        "vis": InputSpec("vis", ("VIS",), 36, 0.1, 25.0),
    }
    host = {
        name: np.zeros((16, 1, s.size_pixels, s.size_pixels), np.float32)
        for name, s in specs.items()
    }
    host["nisp"][:, 0, 7, 6], host["vis"][:, 0, 21, 18] = 10.0, 10.0
    examples = Examples(host, (KINDS == "lens").astype(np.uint8), KINDS, "t", "", specs=specs)
    light = {
        name: np.zeros((1, 1, s.size_pixels, s.size_pixels), np.float32)
        for name, s in specs.items()
    }
    light["nisp"][:, 0, 6, 6], light["vis"][:, 0, 18, 18] = 5.0, 2.0  # all on the source's pixel
    choice = Merging(hosts=("galaxy",), share=1.0, noise=False)
    merger = Merger(choice, Arcs(light, specs, {}), examples)
    rows, places = merger.rows(torch.zeros(6, dtype=torch.int64), torch.ones(6), draws())
    batch = {name: torch.from_numpy(images)[rows] for name, images in host.items()}
    added = {n: a - batch[n] for n, a in merger.merge(batch, places, draws()).items()}
    assert (added["nisp"][:, 0, 7, 6] > 0).all()
    torch.testing.assert_close(added["vis"][:, 0, 21, 18], added["nisp"][:, 0, 7, 6] * 2.0 / 5.0)
    assert added["vis"].flatten(1).count_nonzero(dim=1).tolist() == [1] * 6


def test_a_seed_is_a_set_of_lenses() -> None:
    choice = Merging(hosts=("galaxy", "star"), share=1.0)
    assert torch.equal(merged(choice, arcs(gain=1.0), 3)[0], merged(choice, arcs(gain=1.0), 3)[0])
    assert not torch.equal(
        merged(choice, arcs(gain=1.0), 3)[0], merged(choice, arcs(gain=1.0), 4)[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hosts": ("spiral",), "noise": False},
            r"merging\.hosts: expected kinds out of galaxy, star",
        ),
        (
            {"hosts": ("galaxy",), "band": "z", "noise": False},
            r"merging\.band: expected one of g, r",
        ),
        ({"hosts": ("galaxy",)}, r"merging\.noise: expected false, or .*electrons_per_flux"),
        (
            {"hosts": ("galaxy",), "noise": False, "search_pixels": 16},
            r"merging\.search_pixels: expected at most \d+ on these stamps, found 16",
        ),
    ],
)
def test_a_mistake_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Merger(Merging(**change), arcs(), hosts())


def test_arcs_of_other_pixels_are_refused() -> None:
    other = Arcs(arcs().images, {"image": InputSpec("image", ("g", "r"), 16, 0.3, 25.0)}, {})
    with pytest.raises(InputError, match="arcs: expected pixels as the training set's"):
        Merger(Merging(hosts=("galaxy",)), other, hosts())


def test_a_file_of_arcs(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "arcs.h5", "w") as file:
        file["arcs"] = arcs().images["image"]
        file.attrs.update(bands=["g", "r"], pixel_scale_arcsec=0.25, zero_point_mag=25.0)
        file["arcs"].attrs["electrons_per_flux"] = [3.0, 4.0]
    found = load_arcs(tmp_path / "arcs.h5")
    assert (len(found), found.specs) == (5, {"image": SPEC})
    assert found.electrons_per_flux["image"].tolist() == [3.0, 4.0]
    with h5py.File(tmp_path / "arcs.h5", "a") as file:
        file["arcs"][2] = 0.0
    with pytest.raises(InputError, match="light in every row"):
        load_arcs(tmp_path / "arcs.h5")
    with pytest.raises(InputError, match=r"arcs .*none\.h5: expected a readable HDF5 file"):
        load_arcs(tmp_path / "none.h5")
