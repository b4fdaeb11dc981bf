"""What is seen without scrolling, on desks and on a phone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By

from lenspipe.run_directory import RunDirectory
from tests.browser.conftest import Open
from tests.browser.page import Keep, begin, kept, keys, loaded, one_by_one, text, until, viewport
from tests.serve.running import serving

pytestmark = pytest.mark.timeout(240)
SIZES = [(1400, 900, False), (1920, 1080, False), (390, 844, True)]


def bottom(driver: WebDriver, selector: str) -> float:
    """Of the last such element."""
    read = (
        "return [...document.querySelectorAll(arguments[0])].at(-1).getBoundingClientRect().bottom"
    )
    return float(driver.execute_script(read, selector))


@pytest.mark.parametrize(("width", "height", "touch"), SIZES)
def test_a_page_of_the_mosaic_is_seen_whole(
    large_run: RunDirectory,
    tmp_path: Path,
    open_page: Open,
    keep: Keep,
    width: int,
    height: int,
    touch: bool,
) -> None:
    with serving(large_run.url, grades=str(tmp_path / "grades.sqlite")) as service:
        driver = open_page(service.url)
        viewport(driver, width, height, touch)
        begin(driver)
        until(driver, lambda: loaded(driver))
        for scheme in ("dark", "light"):
            wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
            keep(driver, f"mosaic-{scheme}")
        assert bottom(driver, ".tile") <= bottom(driver, "#view")
        assert bottom(driver, ".turn") <= bottom(driver, "#view") <= height
        # And no row less than there is room for.
        row = bottom(driver, ".tile") - bottom(driver, ".mosaic li:first-child")
        rows = driver.execute_script(
            "const r = [...document.querySelectorAll('.tile')].map((e) => e.offsetTop + "
            "e.parentElement.offsetTop); return new Set(r).size;"
        )
        assert bottom(driver, ".turn") + row / (rows - 1) > bottom(driver, "#view")
        # In a smaller window fewer are shown.
        viewport(driver, width, height - 250, touch)
        until(driver, lambda: bottom(driver, ".tile") <= bottom(driver, "#view"))
        seen = len(driver.find_elements(By.CLASS_NAME, "tile"))
        assert text(driver, "where") == f"1–{seen} of 10,000"
        keys(driver, "n")
        kept(driver)
        assert f"{seen} seen" in text(driver, "progress")


@pytest.mark.parametrize("height", [844, 664])  # with and without a browser's own bars
def test_one_grades_on_a_phone_without_scrolling(
    run: RunDirectory, tmp_path: Path, open_page: Open, keep: Keep, height: int
) -> None:
    with serving(run.url, grades=str(tmp_path / "grades.sqlite")) as service:
        driver = open_page(service.url)
        viewport(driver, 390, height, touch=True)
        begin(driver)
        driver.find_element(By.ID, "to-single").click()
        one_by_one(driver, "1 of 40")
        until(driver, lambda: loaded(driver))
        keep(driver, "single")
        assert bottom(driver, "#stage") < bottom(driver, ".grades") <= bottom(driver, "#view")
        bars = "return ['header', 'footer'].map((e) => document.querySelector(e).offsetHeight)"
        assert sum(driver.execute_script(bars)) < 110
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide == 390
        # A finger on the picture scrolls, until one says that it is for contrast.
        swipe(driver)
        assert scrolled(driver) > 50
        assert contrast(driver) == ""
        driver.execute_script("document.getElementById('by-finger').click()")
        driver.execute_script("document.getElementById('view').scrollTop = 0")
        swipe(driver)
        assert scrolled(driver) == 0
        assert "contrast" in contrast(driver)
        # How pictures look is behind a button.
        assert not driver.find_element(By.ID, "stretch").is_displayed()
        driver.find_element(By.ID, "look-button").click()
        assert driver.find_element(By.ID, "stretch").is_displayed()
        keep(driver, "look")


# A phone on its side; a window that is zoomed to 400%.
@pytest.mark.parametrize(("width", "height", "touch"), [(667, 331, True), (320, 256, False)])
def test_a_picture_is_seen_in_the_smallest_windows(
    run: RunDirectory,
    tmp_path: Path,
    open_page: Open,
    keep: Keep,
    width: int,
    height: int,
    touch: bool,
) -> None:
    with serving(run.url, grades=str(tmp_path / "grades.sqlite")) as service:
        driver = open_page(service.url)
        viewport(driver, width, height, touch)
        begin(driver)
        driver.find_element(By.ID, "to-single").click()
        one_by_one(driver, "1 of 40")
        until(driver, lambda: loaded(driver))
        keep(driver, "single")
        stage = driver.find_element(By.ID, "stage").size
        assert min(stage["width"], stage["height"]) >= 160
        for name in ("documentElement", "body"):
            assert driver.execute_script(f"return document.{name}.scrollWidth") <= width
        read = "const v = document.getElementById('view'); return v.scrollWidth - v.clientWidth"
        assert driver.execute_script(read) <= 0


def swipe(driver: WebDriver) -> None:
    """Up and aside over the picture, as a finger does it."""
    stage = driver.find_element(By.ID, "stage").rect
    for k in range(11):
        point = {"x": stage["x"] + 200 - 5 * k, "y": stage["y"] + 280 - 20 * k}
        touch = {"type": "touchMove" if k else "touchStart", "touchPoints": [point]}
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    before = -1.0
    while before != (before := scrolled(driver)):  # it runs on for a while
        time.sleep(0.3)


def contrast(driver: WebDriver) -> str:
    read = "return document.querySelector('#stage img').style.filter"
    return str(driver.execute_script(read))


def scrolled(driver: WebDriver) -> float:
    return float(driver.execute_script("return document.getElementById('view').scrollTop"))
