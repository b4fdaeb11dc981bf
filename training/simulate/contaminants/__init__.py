"""What a search finds besides lenses: one file per kind, with `draw(rng, filters) -> Scene`.

The file's name is the kind. What spoils an image whatever is in it stands in `defects`.
"""

from __future__ import annotations

import sys

import numpy as np

from lenspipe import registry
from training.simulate.instrument import Instrument
from training.simulate.lens import Visible, draw_lens, visible_in
from training.simulate.observe import typical_conditions
from training.simulate.scene import Scene


def names() -> list[str]:
    """All kinds, without `lens`."""
    return registry.names(sys.modules[__name__])


def draw(
    rng: np.random.Generator, kind: str, instrument: Instrument, visible: Visible | None = None
) -> Scene:
    """A random scene of a kind. A lens's arcs are visible under the instrument's median seeing and
    sky; visible: which count, default `lens.visible_in`. InputError: no such kind."""
    if kind == "lens":
        shown = visible or visible_in(instrument)
        return draw_lens(rng, instrument, typical_conditions(instrument), visible=shown)[0]
    made = registry.load(sys.modules[__name__], kind, "kind of contaminant").draw(
        rng, instrument.filters
    )
    if not isinstance(made, Scene):
        raise TypeError(f"expected a Scene of {kind}, found {type(made).__qualname__}")
    return made
