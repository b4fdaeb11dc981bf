from __future__ import annotations

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from training.simulate.multiplicity import MIN_MAGNIFICATION, count_images


def lens(
    gamma: float, e1: float, shear: float, theta_e: float = 1.3
) -> tuple[tuple[str, dict[str, float]], ...]:
    centre = {"center_x": 0.0, "center_y": 0.0}
    power_law = {"theta_E": theta_e, "gamma": gamma, "e1": e1, "e2": 0.05, **centre}
    return (("EPL", power_law), ("SHEAR", {"gamma1": shear, "gamma2": -0.02}))


def test_a_sphere_makes_two_images_within_its_einstein_radius_and_one_beyond() -> None:
    sphere = (("SIS", {"theta_E": 1.2, "center_x": 0.0, "center_y": 0.0}),)
    assert count_images(sphere, 1.2, 0.5, 0.2) == 2
    assert count_images(sphere, 1.2, 1.3, 0.4) == 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_images_are_as_many_as_lenstronomy_finds() -> None:
    rng = np.random.default_rng(6)
    found, expected = [], []
    for _ in range(24):
        gamma, e1, shear = rng.uniform(1.8, 2.3), rng.uniform(0.0, 0.25), rng.uniform(0.0, 0.08)
        mass = lens(gamma, e1, shear)
        x, y = rng.uniform(-0.6, 0.6, size=2)
        solver = LensEquationSolver(LensModel([name for name, _ in mass]))
        places = solver.image_position_from_source(
            x,
            y,
            [dict(keywords) for _, keywords in mass],
            min_distance=0.05,
            search_window=8.0,
            magnification_limit=MIN_MAGNIFICATION,
        )
        found.append(count_images(mass, 1.3, x, y))
        expected.append(len(places[0]))
    assert set(expected) >= {2, 4}
    assert np.mean(np.array(found) == np.array(expected)) > 0.95
