from __future__ import annotations

import subprocess
import sys

import pytest

from lenspipe.errors import InputError
from lenspipe.preflight import check_apart

LIMITS = """
import resource
from lenspipe import preflight
hard = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
print(preflight.allow_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
print(preflight.allow_open_files(), hard)
"""


def test_a_run_may_open_as_many_files_as_the_system_grants() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITS], capture_output=True, text=True, check=True, timeout=120
    )
    first, second = (list(map(int, line.split())) for line in done.stdout.splitlines())
    assert len(set(first)) == 1
    assert first[0] == second[0] == second[1]


@pytest.mark.parametrize(
    ("output", "sources", "inputs", "field"),
    [
        ("/a/run", ["/a/run"], {}, "output"),
        ("/a/run", ["/a"], {}, "output"),
        ("/a/run", ["/b", "/a/"], {}, "output"),
        ("s3://b/cat/run", ["s3://b/cat"], {}, "output"),
        ("/a", ["/a/catalogue/x.parquet"], {}, "sources.path"),
        ("/a/", ["/a/select"], {}, "sources.path"),
        ("/a", ["/c"], {"cutouts.tiles": "/a/plan/*_g.fits"}, "cutouts.tiles"),
        ("s3://b", ["s3://b/scores/x.parquet"], {}, "sources.path"),
        ("/a/run", ["/b"], {"cutouts.path": "/a/run/candidates.zarr"}, "cutouts.path"),
        ("/gl[1]ob", ["/gl[1]ob/select/x"], {}, "sources.path"),
        ("/a/r[1]/run", ["/a/r[1]"], {}, "output"),
    ],
)
def test_a_run_is_kept_apart_from_its_inputs(
    output: str, sources: list[str], inputs: dict[str, str], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_apart(output, sources, inputs)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("output", "sources", "inputs"),
    [
        ("/a/run", ["/a/catalogue", "/a/run.parquet"], {"cutouts.path": "/a/{object_id}.fits"}),
        ("/a/run2", ["/a/run/catalogue"], {"cutouts.tiles": "/a/*"}),
        ("/a", ["/a/survey/catalogue"], {"cutouts.path": "/a/plans/x"}),
        ("s3://b/run", ["s3://b/run1", "/run"], {}),
        ("/gl[1]ob/run", ["/gl[1]ob/catalogue"], {"cutouts.path": "/gl[1]ob/x.h5"}),
        ("/s/{run}", ["/s/{catalogue}"], {}),
    ],
)
def test_neighbours_are_taken(output: str, sources: list[str], inputs: dict[str, str]) -> None:
    check_apart(output, sources, inputs)
