"""What becomes of a job's environment on its way, by Ray's own function."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

from ray._private import utils

HOSTILE = """\
# größer als 'Zitat' $HOME `x` ${NO_SUCH_NAME} $$ ${HOME} \\n "$(true)"
name: toy
cuts: {south: "regexp_matches(field, '^S${BAND}$HOME')"}
"""


def as_ray_sets_them(variables: dict[str, str]) -> dict[str, str]:
    """The variables as a job of a node finds them, whose own environment has HOME and BAND."""
    untyped: Any = utils
    with patch.dict(os.environ, {"HOME": "/root", "BAND": "north"}):
        untyped.update_envs(variables)
        return {name: os.environ[name] for name in variables}
