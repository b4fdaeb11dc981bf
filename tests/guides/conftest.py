"""One scene for all blocks of a file; each block gets a copy."""

from __future__ import annotations

import pytest

from lenspipe.processes.slots import Machine
from tests.guides.scene import Scene, make_scene


@pytest.fixture(scope="session")
def scene(ray_cluster: Machine, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("guides"))
