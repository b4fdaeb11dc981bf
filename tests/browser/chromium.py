"""Debian's Chromium without a screen."""

from __future__ import annotations

from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.tools import require_tool


def open_chromium(profile: Path, size: tuple[int, int]) -> WebDriver:
    """A browser with a profile of its own; what its pages log and ask for is kept. `quit` ends it.

    size: of the window (pixels).
    """
    options = webdriver.ChromeOptions()
    options.binary_location = require_tool("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(require_tool("chromedriver")))
