"""One published run with stamps, and a service of it, for all tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lenspipe.catalogue import hats
from lenspipe.catalogue.candidates import Rule, StampBatch, choose, write_candidates
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.contracts import InputSpec
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.serve.command import Service
from tests.catalogue.small_run import cap, commit_scores, failure_table, score_table
from tests.serve.running import serving

HERE = Path(__file__).parent
CANDIDATES = 40
WITHOUT_PIXELS = 7  # rank of the candidate whose stamp could not be read
SIZE = 24
_SERVED = {"service", "guarded", "run"}


def published_run(folder: Path, candidates: int = CANDIDATES, crowd: int = 900) -> RunDirectory:
    """A crowd around (150, 2), 200 sources at RA 0 and 100 at a pole; candidates with g, r, i."""
    run = RunDirectory(str(folder))
    tables = [
        score_table(*cap(crowd, 150.0, 2.0, 1.0)),
        score_table(*cap(200, 0.0, -2.0, 0.5), crowd),
        score_table(*cap(100, 10.0, 89.9, 0.1), crowd + 200),
    ]
    parts = commit_scores(run, tables, [failure_table([900_001], ["not_found"])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hats, "ROW_GROUP_ROWS", 60)
        write_catalogue(run, parts, "toy", max(300, crowd // 4))
    chosen = choose(run, parts, Rule(top=candidates))
    assert chosen is not None
    ids = chosen.table["object_id"].to_numpy()
    spec = InputSpec("image", ("g", "r", "i"), SIZE, 0.25, zero_point_mag=25.0)
    write_candidates(run, chosen, [spec], [_stamps(ids)], {})
    run.write_json(
        RUN,
        {
            "state": "done",
            "updated": "2026-01-01T00:00:00",
            "survey": {"name": "toy", "publish": {"mosaic": 10}},
            "inputs": {"rows": crowd + 301},
        },
    )
    return run


def _stamps(ids: np.ndarray) -> StampBatch:
    keep = np.arange(len(ids)) != WITHOUT_PIXELS - 1
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    core = np.exp(-0.5 * (x**2 + y**2) / 9.0)
    pixels = core * np.array([1.0, 3.0, 6.0])[:, None, None]
    noise = rng.normal(0, 0.05, (keep.sum(), 3, SIZE, SIZE))
    maps = np.broadcast_to(core, (keep.sum(), SIZE, SIZE))
    images = {"image": (pixels + noise).astype(np.float32)}
    # Candidates of the same sixth are seen alike.
    seen = np.eye(6, dtype=np.float32)[np.arange(len(ids)) % 6]
    members = (("resnet_a", 2), ("vit_b", 4))
    return StampBatch(ids[keep], images, maps.astype(np.float32), seen[keep], members)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What talks to a service that runs has a command of its own: `make test-service`."""
    for item in items:
        if item.path.is_relative_to(HERE) and _SERVED & set(getattr(item, "fixturenames", ())):
            item.add_marker("service")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return published_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def service(run: RunDirectory) -> Iterator[Service]:
    with serving(run.url) as running:
        yield running
