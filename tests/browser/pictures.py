"""The pictures of the documentation, taken of a run's pages in Chromium.

    make demo && .venv/bin/python -m tests.browser.pictures demo/run docs/pictures

Simulated sky alone: pictures of real survey data stay out of the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.chromium import open_chromium
from tests.browser.page import begin, keys, loaded, one_by_one, text, until, viewport
from tests.serve.running import serving

WIDTH, HEIGHT = 1320, 640  # pixels


def take(run_url: str, folder: Path) -> None:
    """`mosaic.png` and `candidate.png` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        driver = open_chromium(Path(scratch, "profile"), (WIDTH, HEIGHT))
        try:
            with serving(run_url, grades=str(Path(scratch, "grades.sqlite"))) as service:
                driver.get(service.url)
                viewport(driver, WIDTH, HEIGHT)
                _take(driver, folder)
        finally:
            driver.quit()


def _take(driver: WebDriver, folder: Path) -> None:
    begin(driver)
    until(driver, lambda: loaded(driver))
    driver.save_screenshot(str(folder / "mosaic.png"))
    total = text(driver, "where").rpartition(" of ")[2]
    keys(driver, "o")
    one_by_one(driver, f"1 of {total}")
    until(driver, lambda: loaded(driver))
    driver.save_screenshot(str(folder / "candidate.png"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run directory")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    take(options.run, options.folder)
