from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lenspipe.catalogue import hats
from lenspipe.catalogue import published as published_module
from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.published import Published, RowGroup
from lenspipe.contracts import score_schema
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import MEMBERS, cap, commit_scores, score_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Sources over the whole sky and crowds at both poles, at RA 0 and around (150, 2)."""
    rng = np.random.default_rng(4)
    sky = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    crowds = [
        (rng.uniform(0, 360, 500), 90 - np.abs(rng.normal(0, 0.5, 500))),
        (rng.uniform(0, 360, 500), -90 + np.abs(rng.normal(0, 0.5, 500))),
        (rng.normal(0, 0.5, 500) % 360, rng.normal(0, 0.5, 500)),
        cap(500, 150.0, 2.0, 0.5),
    ]
    tables = [score_table(*sky, seed=9)]
    tables += [score_table(ra, dec, first_id=3000 + 500 * k) for k, (ra, dec) in enumerate(crowds)]
    run = RunDirectory(str(tmp_path_factory.mktemp("run")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hats, "ROW_GROUP_ROWS", 50)
        hats.write_catalogue(run, commit_scores(run, tables), "toy", 400)
    return run


def rows_of(run: RunDirectory) -> pa.Table:
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    return scored


CENTRES = st.one_of(
    st.tuples(st.floats(0, 360), st.floats(-90, 90)),
    st.tuples(st.floats(0, 360), st.sampled_from([-90.0, -89.8, 89.8, 90.0])),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(centre=CENTRES, radius=st.floats(-3.0, 2.0).map(lambda power: 10.0**power))
@example(centre=(0.0, 90.0), radius=0.7)
@example(centre=(359.99, 0.0), radius=0.3)
@example(centre=(10.0, 10.0), radius=180.0)
def test_a_cone_is_what_astropy_finds(
    run: RunDirectory, centre: tuple[float, float], radius: float
) -> None:
    from astropy.coordinates import SkyCoord

    rows = rows_of(run)
    there = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")
    distance = there.separation(SkyCoord(*centre, unit="deg")).deg
    found = Published(run).cone(Cone(*centre, radius))
    expected = rows.filter(distance <= radius)
    assert sorted(found["object_id"].to_pylist()) == sorted(expected["object_id"].to_pylist())
    separations = found["separation_arcsec"].to_numpy()
    assert np.all(np.diff(separations) >= 0)
    np.testing.assert_allclose(np.sort(distance[distance <= radius]) * 3600, separations, atol=1e-7)


def test_rows_come_whole_with_their_units(run: RunDirectory) -> None:
    found = Published(run).cone(Cone(150.0, 2.0, 0.1))
    rows = rows_of(run).filter(pa.compute.is_in(rows_of(run)["object_id"], found["object_id"]))
    assert found.num_rows > 5
    both = [t.sort_by("object_id") for t in (found.drop_columns("separation_arcsec"), rows)]
    assert both[0].equals(both[1])
    assert found.schema.remove_metadata().equals(
        score_schema(pa.int64(), MEMBERS).append(found.schema.field("separation_arcsec")),
        check_metadata=True,
    )
    assert found.schema.field("separation_arcsec").metadata[b"unit"] == b"arcsec"


def test_an_empty_cone_has_the_columns_too(run: RunDirectory) -> None:
    found = Published(run).cone(Cone(150.0, 40.0, 1e-4))
    assert found.num_rows == 0
    assert found.column_names[-1] == "separation_arcsec"


def test_some_columns(run: RunDirectory) -> None:
    published = Published(run)
    found = published.cone(Cone(150.0, 2.0, 0.3), ["score", "ra"])
    assert found.column_names == ["score", "ra", "separation_arcsec"]
    assert published.cone(Cone(150.0, 2.0, 0.3), ["ra"]).num_rows == found.num_rows > 0
    with pytest.raises(InputError, match=r"^columns: expected some of object_id, ra.*'zed'"):
        published.cone(Cone(150.0, 2.0, 0.3), ["ra", "zed"])


def test_only_what_the_cone_touches_is_read(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Published(run)
    read: list[int] = []
    original = published_module._in_cone

    def noting(group: RowGroup, *rest: Any) -> pa.Table | None:
        read.append(group._number)
        return original(group, *rest)

    monkeypatch.setattr(published_module, "_in_cone", noting)
    assert published.cone(Cone(150.0, 2.0, 1.0)).num_rows >= 500
    assert len(read) < 25  # of 100 groups; the crowd alone fills ten
    read.clear()
    published.cone(Cone(150.0, 2.0, 1 / 3600))
    assert len(read) <= 2


def test_a_run_without_a_catalogue_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^run: expected a finished run"):
        Published(RunDirectory(str(tmp_path)))


def test_damage_is_told(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    hats.write_catalogue(
        run, commit_scores(run, [score_table(*cap(50, 1.0, 1.0, 0.2))]), "toy", 400
    )
    published = Published(run)
    path = run.store.local_path(published.files[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(CorruptRunError, match="no whole Parquet file"):
        Published(run).cone(Cone(1.0, 1.0, 1.0))
    path.unlink()
    with pytest.raises(CorruptRunError, match="lost"):
        Published(run).cone(Cone(1.0, 1.0, 1.0))
    run.store.write("catalogue/partition_info.csv", b"Order\n1\n")
    with pytest.raises(CorruptRunError, match="no list of pixels"):
        Published(run)
