from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Angle, SkyCoord

import lenspipe
from lenspipe.catalogue.candidates import Rule, choose, write_candidates
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import cap, commit_scores, score_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunDirectory(str(tmp_path_factory.mktemp("run")))
    parts = commit_scores(run, [score_table(*cap(600, 150.0, 2.0, 0.5))])
    write_catalogue(run, parts, "toy", 200)
    chosen = choose(run, parts, Rule(top=9))
    assert chosen is not None
    write_candidates(run, chosen, [], [], {})
    run.write_json("run.json", {"state": "done", "layout": 3})
    return Path(run.url)


def test_a_cone_is_an_astropy_table_with_units(folder: Path) -> None:
    found = lenspipe.open_run(folder).cone(150.0, 2.0, 600.0)
    assert len(found) > 5
    assert str(found["ra"].unit) == "deg"
    assert str(found["separation_arcsec"].unit) == "arcsec"
    assert found["score"].description == "logit of the ensemble; what candidates rank by"
    assert found["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert np.all(found["separation_arcsec"] <= 600.0)


def test_a_cone_takes_angles_of_astropy(folder: Path) -> None:
    results = lenspipe.open_run(folder)
    found = results.cone(150.0, 2.0, 600.0)
    centre = SkyCoord(150.0, 2.0, unit="deg")
    for ra, dec, radius in (
        (centre.ra, centre.dec, Angle("10m")),
        (10.0 * units.hourangle, 2.0 * units.deg, 600.0 * units.arcsec),
        (np.float32(150.0), np.int64(2), 1.0 / 6.0 * units.deg),
    ):
        assert list(results.cone(ra, dec, radius)["object_id"]) == list(found["object_id"])
    with pytest.raises(InputError, match=r"^radius_arcsec: expected .*, found <Quantity 5. Jy>"):
        results.cone(150.0, 2.0, 5.0 * units.Jy)
    with pytest.raises(InputError, match=r"^ra_deg: expected a number of deg"):
        results.cone([150.0, 151.0] * units.deg, 2.0, 5.0)


def test_a_column_of_nothing_is_text(folder: Path) -> None:
    found = lenspipe.open_run(folder).sql("SELECT NULL AS b, object_id FROM scores LIMIT 2")
    assert found["b"].mask.all()
    assert found["b"].dtype.kind == "U"


def test_sql_and_candidates(folder: Path) -> None:
    results = lenspipe.open_run(str(folder))
    candidates = results.candidates()
    assert list(candidates["rank"]) == list(range(1, 10))
    best = results.sql("SELECT max(score) AS best FROM scores")
    assert best["best"][0] == candidates["score"][0]
    with pytest.raises(InputError, match=r"^query: expected one SELECT"):
        results.sql("DROP TABLE scores")


# nested-pandas 0.7, which lsdb builds on, still calls what pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:The inplace keyword:pandas.errors.Pandas4Warning")
def test_lsdb_opens_it_and_crossmatches(folder: Path) -> None:
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
    results = lenspipe.open_run(folder)
    catalogue = results.lsdb()
    found = results.cone(150.0, 2.0, 600.0)
    cone = catalogue.cone_search(ra=150.0, dec=2.0, radius_arcsec=600.0).compute()
    assert sorted(cone["object_id"]) == sorted(found["object_id"])
    others = found.to_pandas()[["object_id", "ra", "dec"]].assign(
        dec=lambda t: t["dec"] + 0.5 / 3600
    )
    other = lsdb.from_dataframe(others, ra_column="ra", dec_column="dec")
    matched = catalogue.crossmatch(
        other, radius_arcsec=1.0, suffixes=("", "_other"), suffix_method="overlapping_columns"
    ).compute()
    assert sorted(matched["object_id"]) == sorted(found["object_id"])
    assert list(matched["object_id"]) == list(matched["object_id_other"])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^run: expected a run directory"):
        lenspipe.open_run(tmp_path)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lenspipe.no_such_name
