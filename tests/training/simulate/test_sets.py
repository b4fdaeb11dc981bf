from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml
import zarr
from typer.testing import CliRunner

from lenspipe import cutouts
from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from training import cli, stages
from training.data import load_images, real_objects
from training.merging import load_arcs
from training.recipe import load_member
from training.simulate import real, spread
from training.simulate.dataset import CHUNK_ROWS, Generator, parse_recipe, rows
from training.simulate.parts import Parts
from training.simulate.sets import make_dataset, parts_of, simulate
from training.workspace import Workspace, set_file

SMALL = {"n": 70, "seed": 12, "size_pixels": 32}


def contents(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[:]} if hasattr(item, "shape") else {})
        )
    return found


def test_a_set_is_the_same_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        simulate(SMALL, tmp_path / f"{workers}.h5", workers)
    one, two = contents(tmp_path / "1.h5"), contents(tmp_path / "2.h5")
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


def test_a_set_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "train.h5"
    make_dataset(parse_recipe({**SMALL, "n": 40}), path)
    with h5py.File(path) as file:
        assert file["images"].shape == (40, 3, 32, 32)
        assert file["images"].dtype == np.float32
        assert np.isfinite(file["images"][:]).all()
        assert list(file.attrs["bands"]) == ["g", "r", "i"]
        assert file.attrs["zero_point_mag"] == 25.0
        assert file.attrs["pixel_scale_arcsec"] == 0.25
        assert "lens_fraction: 0.5" in file.attrs["recipe"]
        lens = file["label"][:] == 1
        kind = file["kind"].asstr()[:]
        assert set(kind[lens]) == {"lens"}
        assert "lens" not in set(kind[~lens])
        assert np.isfinite(file["truth/theta_e_arcsec"][:][lens]).all()
        assert np.isnan(file["truth/theta_e_arcsec"][:][~lens]).all()
        assert (file["truth/arc_snr_g"][:][lens] >= 10).all()
        assert file["object_id"][:].tolist() == list(range(40))
    assert [p.name for p in path.parent.iterdir()] == ["train.h5"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_done_is_kept_and_the_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe(SMALL)
    make_dataset(recipe, tmp_path / "whole.h5")
    path = tmp_path / "resumed.h5"
    parts_of(recipe, path).commit(rows(Generator.of(recipe), 0))
    asked: list[int] = []

    def watched(generator: Generator, starts: list[int]) -> object:
        asked.extend(starts)
        return (rows(generator, start) for start in starts)

    monkeypatch.setattr(spread, "here", watched)
    make_dataset(recipe, path)
    assert asked == [CHUNK_ROWS]
    assert sha256(path) == sha256(tmp_path / "whole.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["resumed.h5", "whole.h5"]


def test_another_recipe_takes_nothing_from_what_was_done(tmp_path: Path) -> None:
    one, two = (parse_recipe({**SMALL, "seed": seed}) for seed in (1, 2))
    parts_of(one, tmp_path / "set.h5").commit(rows(Generator.of(one), 0))
    assert parts_of(two, tmp_path / "set.h5").done() == set()


def test_other_real_data_takes_nothing_from_what_was_done(tmp_path: Path) -> None:
    recipe = {**SMALL, "painted_fraction": 0.0, "real_negative_fraction": 0.0}
    (tmp_path / "real").mkdir()
    bare, given = (parse_recipe({**recipe, "data": d}) for d in (None, str(tmp_path / "real")))
    out = tmp_path / "set.h5"
    parts_of(bare, out).commit(rows(Generator.of(bare), 0))
    assert parts_of(given, out).done() == {0}  # none of what it would take is there
    path = tmp_path / "real" / real.SOURCE_FILES[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"galaxies")
    assert parts_of(given, out).done() == set()


def test_a_killed_simulation_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = {**SMALL, "n": 5 * CHUNK_ROWS, "lens_fraction": 0.1, "negatives": {"star": 1.0}}
    path = tmp_path / "killed.h5"
    code = (
        "import sys, yaml; from pathlib import Path; from training.simulate.sets import simulate;"
    )
    code += "simulate(yaml.safe_load(sys.argv[1]), Path(sys.argv[2]), 2)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, yaml.safe_dump(recipe), str(path)], start_new_session=True
    )
    kept = parts_of(parse_recipe(recipe), path)
    while not kept.done() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = kept.done()
    assert 0 < len(done) < 5
    assert not path.exists()
    simulate(recipe, path, 1)
    simulate(recipe, tmp_path / "undisturbed.h5", 1)
    assert sha256(path) == sha256(tmp_path / "undisturbed.h5")


def test_a_file_that_is_not_whole_is_no_part(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    (parts.folder / "000000000.partial").write_bytes(b"half")
    assert parts.done() == set()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    for name in ("set.h5", "set.zarr"):
        make_dataset(parse_recipe(SMALL), folder / name)
    return folder / "set.h5", folder / "set.zarr"


def test_zarr_holds_what_hdf5_holds(both: tuple[Path, Path]) -> None:
    expected, root = contents(both[0]), zarr.open_group(both[1], mode="r")
    for name, values in expected.items():
        found = np.asarray(root[name][:])  # type: ignore[index] # an array
        if "names" in root[name].attrs:
            found = np.array(root[name].attrs["names"]).astype(object)[found]
            found = np.char.encode(found.astype(np.str_)).astype(object)
        np.testing.assert_array_equal(found, values, err_msg=name)
    with h5py.File(both[0]) as file:
        assert root.attrs["recipe"] == file.attrs["recipe"]
    assert parse_recipe(yaml.safe_load(str(root.attrs["recipe"]))) == parse_recipe(SMALL)


def test_zarr_is_sharded_and_of_version_3(both: tuple[Path, Path]) -> None:
    images = zarr.open_group(both[1], mode="r")["images"]
    assert isinstance(images, zarr.Array)
    assert images.metadata.zarr_format == 3
    assert images.shards is not None
    assert images.shards[0] > images.chunks[0]


def test_training_reads_a_zarr_set_as_it_reads_hdf5(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = map(load_images, both)
    np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.kinds.tolist() == two.kinds.tolist()
    assert one.truth.keys() == two.truth.keys()
    for name, values in one.truth.items():
        np.testing.assert_array_equal(values, two.truth[name], err_msg=name)
    assert (one.specs, one.name) == (two.specs, two.name)
    assert len({one.sha256, two.sha256, load_images(both[1]).sha256}) == 2
    assert real_objects(both[1]) == real_objects(both[0]) == ()
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="expected a readable HDF5 file or Zarr store"):
        load_images(tmp_path / "empty.zarr")


def test_the_command_writes_zarr_and_the_stages_find_it(
    recipe_content: dict[str, Any], tmp_path: Path
) -> None:
    arcs = {"n": 3, "seed": 9, "content": "arcs"}
    content = {
        **recipe_content,
        "simulate": {"size_pixels": 32, "lens_fraction": 0.5},
        "splits": {**recipe_content["splits"], "train": {"n": 6, "seed": 1}, "arcs": arcs},
        "merging": {"hosts": ["star"]},
        "batch_size": 4,
    }
    path, work = tmp_path / "r.yaml", tmp_path / "work"
    path.write_text(yaml.safe_dump(content))
    for split in ("train", "arcs"):
        arguments = ["simulate", str(path), "--work", str(work), "--split", split]
        done = CliRunner().invoke(cli.app, [*arguments, "--workers", "1", "--format", "zarr"])
        assert done.exit_code == 0, done.output
        assert done.output.strip().endswith(".zarr")
    recipe, place = load_member(path), Workspace(work)
    assert stages.examples(recipe, "train", place).shapes == {"image": (3, 32, 32)}
    made = load_arcs(set_file(recipe, "arcs", place))
    assert (len(made), len(made.electrons_per_flux["image"])) == (3, 3)
    assert sorted(p.suffix for p in (work / "data").iterdir()) == [".zarr", ".zarr"]


def test_lenspipes_reader_reads_a_zarr_set(both: tuple[Path, Path]) -> None:
    options = {
        "reader": "zarr",
        "path": str(both[1]),
        "bands": ["g", "r", "i"],
        "ids": "object_id",
        "zero_point": {"constant": 25.0},
    }
    reader = cutouts.open_reader(cutouts.options_model("zarr").model_validate(options), ".")
    wanted = [3, 69, 0]
    table = pa.table({"object_id": wanted, "ra": [1.0] * 3, "dec": [2.0] * 3})
    batch = reader.read(table, (InputSpec("images", ("g", "r", "i"), 32, 0.25, 25.0),))
    assert not batch.failures
    with h5py.File(both[0]) as file:
        np.testing.assert_array_equal(batch.images["images"], file["images"][:][wanted])


def test_arcs_alone_are_noiseless_and_know_their_truth(tmp_path: Path) -> None:
    recipe = {**SMALL, "n": 6, "content": "arcs"}
    made = Generator.of(parse_recipe(recipe))
    simulate(recipe, tmp_path / "arcs.h5", 1)
    with h5py.File(tmp_path / "arcs.h5") as file:
        assert "images" not in file
        arcs = file["arcs"][:]
        assert arcs.shape == (6, 3, 32, 32)
        assert arcs.min() > -1e-3
        assert file["label"][:].all()
        magnitude = 25.0 - 2.5 * np.log10(arcs[:, 0].sum(axis=(1, 2)))
        # What the PSF spreads over the stamp's edge is not in it.
        np.testing.assert_allclose(magnitude, file["truth/arc_mag_g"][:], atol=0.25)
        bright = (arcs[:, 0] > 2 * file["truth/sky_rms_g"][:][:, None, None]).mean(axis=(1, 2))
        np.testing.assert_allclose(bright, file["truth/arc_area_2sigma_fraction"][:], atol=1e-6)
    assert made.recipe.content == "arcs"
    electrons = [made.instrument.noise[band].electrons for band in "gri"]
    [known] = load_arcs(tmp_path / "arcs.h5").electrons_per_flux.values()
    np.testing.assert_allclose(known, electrons, rtol=1e-6)


def test_ray_makes_the_same_set(both: tuple[Path, Path], tmp_path: Path) -> None:
    make_dataset(parse_recipe(SMALL), tmp_path / "ray.h5", 1, address="local")
    assert sha256(tmp_path / "ray.h5") == sha256(both[0])
