"""Headless Chromium, and services for it to look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from lenspipe.run_directory import RunDirectory
from tests.browser.chromium import open_chromium
from tests.browser.page import begin
from tests.serve.conftest import published_run
from tests.serve.running import serving

Open = Callable[..., WebDriver]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Like all that talks to a service that runs: `make test-service`."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("service")
            item.add_marker("tool")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return published_run(tmp_path_factory.mktemp("inspected"))


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """10,000 candidates, as a survey's first look has them."""
    return published_run(tmp_path_factory.mktemp("large"), 10_000, 11_000)


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Open]:
    """Opens a page in a browser of its own profile; at the end nothing may stand in its log."""
    with ExitStack() as stack:
        count = 0

        def opened(url: str, size: tuple[int, int] = (1400, 900)) -> WebDriver:
            nonlocal count
            count += 1
            driver = open_chromium(tmp_path / f"profile-{count}", size)
            stack.callback(driver.quit)
            driver.get(url)
            return driver

        yield opened


@pytest.fixture
def grades(tmp_path: Path) -> Path:
    return tmp_path / "grades.sqlite"


@pytest.fixture
def driver(run: RunDirectory, grades: Path, open_page: Open) -> Iterator[WebDriver]:
    """Of ana, who has given her name and sees the first page of `run`."""
    with serving(run.url, grades=str(grades)) as service:
        opened = open_page(service.url)
        begin(opened)
        yield opened


@pytest.fixture
def keep(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[WebDriver, str], None]:
    """Keeps a screenshot, in the folder that LENSPIPE_SCREENSHOTS names or the test's own."""
    folder = Path(os.environ.get("LENSPIPE_SCREENSHOTS") or tmp_path)

    def kept(driver: WebDriver, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        assert driver.save_screenshot(str(folder / f"{request.node.name}-{name}.png"))

    return kept
