from __future__ import annotations

import io

import numpy as np
import pytest
import requests
from astropy.io.votable import parse
from astropy.io.votable.tree import VOTableFile

from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.published import Published
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.command import Service

pyvo = pytest.importorskip("pyvo")


def get(service: Service, query: str) -> VOTableFile:
    reply = requests.get(f"{service.url}/scs?{query}", timeout=30)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/x-votable+xml"
    # The standard's UCDs are of before UCD1+, which the parser knows alone.
    return parse(io.BytesIO(reply.content), verify="ignore")


def statuses(file: VOTableFile) -> list[str]:
    return [str(i.value) for i in file.resources[0].infos if i.name == "QUERY_STATUS"]


@pytest.mark.parametrize(("ra", "dec", "radius"), [(150, 2, 0.4), (0, -2, 0.3), (77, 90, 0.1)])
def test_pyvo_finds_what_the_catalogue_has(
    service: Service, run: RunDirectory, ra: float, dec: float, radius: float
) -> None:
    found = pyvo.conesearch(f"{service.url}/scs", pos=(ra, dec), radius=radius)
    expected = Published(run).cone(Cone(ra, dec, radius))
    assert len(found) == expected.num_rows > 20
    ids = {str(key) for key in expected["object_id"].to_pylist()}
    assert {record.id for record in found} == ids
    assert np.allclose([r.pos.ra.deg for r in found], expected["ra"].to_numpy())


def test_the_columns_that_the_standard_asks_for(service: Service) -> None:
    fields = {
        f.ucd: f for f in get(service, "RA=150&DEC=2&SR=0.1").get_first_table().fields if f.ucd
    }
    assert fields["ID_MAIN"].datatype == "char"
    assert fields["POS_EQ_RA_MAIN"].datatype == fields["POS_EQ_DEC_MAIN"].datatype == "double"
    assert str(fields["POS_EQ_RA_MAIN"].unit) == "deg"
    assert fields["POS_EQ_RA_MAIN"].ref == "ICRS"


def test_verbosity_adds_columns(service: Service) -> None:
    names = [
        [f.name for f in get(service, f"RA=150&DEC=2&SR=0.1&VERB={verb}").get_first_table().fields]
        for verb in (1, 2, 3)
    ]
    assert names[0] == ["object_id", "ra", "dec", "separation_arcsec"]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert {"score", "probability"} <= set(names[1])


def test_a_radius_of_nought_asks_for_the_columns_alone(service: Service) -> None:
    table = get(service, "RA=150&DEC=2&SR=0").get_first_table()
    assert len(table.fields) > 4
    assert len(table.array) == 0


def test_more_rows_than_asked_for_are_said_to_be(service: Service) -> None:
    file = get(service, "RA=150&DEC=2&SR=1&MAXREC=5")
    assert len(file.get_first_table().array) == 5
    assert statuses(file) == ["OK", "OVERFLOW"]
    few = get(service, "RA=150&DEC=2&SR=0.01&MAXREC=500")
    assert statuses(few) == ["OK"]
    assert len(get(service, "RA=150&DEC=2&SR=1&MAXREC=0").get_first_table().array) == 0


def test_names_of_parameters_are_in_any_case(service: Service) -> None:
    assert len(get(service, "ra=150&dEc=2&sr=0.3").get_first_table().array) > 10


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "RA"),
        ("RA=150&DEC=2", "SR"),
        ("RA=ten&DEC=2&SR=1", "RA"),
        ("RA=150&DEC=91&SR=1", "DEC"),
        ("RA=150&DEC=2&SR=-1", "SR"),
        ("RA=150&DEC=2&SR=181", "SR"),
        ("RA=nan&DEC=2&SR=1", "RA"),
        ("RA=inf&DEC=2&SR=1", "RA"),
        ("RA=1&RA=2&DEC=2&SR=1", "RA"),
        ("RA=150&DEC=2&SR=1&VERB=4", "VERB"),
        ("RA=150&DEC=2&SR=1&MAXREC=-1", "MAXREC"),
        ("RA=%00&DEC=2&SR=1", "RA"),
    ],
)
def test_errors_are_tables_of_the_standard(service: Service, query: str, named: str) -> None:
    file = get(service, query)
    [error] = [info for info in file.infos if info.name == "Error"]
    assert str(error.value).startswith(f"{named}: expected ")
    with pytest.raises(pyvo.dal.exceptions.DALQueryError):
        pyvo.dal.scs.SCSQuery(f"{service.url}/scs?{query}").execute()
