"""Controls by keyboard alone, and the list of flagged candidates from end to end."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import requests
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from lenspipe.run_directory import RunDirectory
from lenspipe.serve.grades.exchange import import_rows
from lenspipe.serve.grades.store import open_store
from tests.browser.conftest import Open
from tests.browser.page import (
    Keep,
    begin,
    complaints,
    first_candidate,
    focus,
    kept,
    keys,
    mosaic,
    one_by_one,
    press,
    stored,
    text,
    until,
    viewport,
)
from tests.serve.running import serving

pytestmark = pytest.mark.timeout(240)


def active(driver: WebDriver, name: str) -> bool:
    return bool(driver.execute_script("return document.activeElement.id === arguments[0]", name))


def drawn(driver: WebDriver, look: str) -> None:
    """Until the picture is there as it was asked for."""
    read = """
        const page = document.querySelector('.single[aria-busy="false"]');
        return page?.querySelector("#stage img")?.src ?? "";
    """
    until(driver, lambda: look in driver.execute_script(read))


def test_every_control_works_by_keyboard_alone(driver: WebDriver, grades: Path) -> None:
    focus(driver, "#to-single")
    press(driver, Keys.ENTER)
    one_by_one(driver, "1 of 40")
    # A box is ticked by space, and nothing is flagged.
    focus(driver, "#no-light")
    press(driver, Keys.SPACE)
    drawn(driver, "without_lens_light=true")
    assert driver.find_element(By.ID, "no-light").is_selected()
    assert stored(grades) == []
    # Grades by Enter and by space, where the focus stays for the next one.
    focus(driver, '[data-grade="A"]')
    press(driver, Keys.ENTER)
    one_by_one(driver, "2 of 40")
    grade = driver.switch_to.active_element
    assert grade.get_attribute("data-grade") == "A"
    press(driver, Keys.SPACE)
    one_by_one(driver, "3 of 40")
    kept(driver)
    assert stored(grades) == [("ana", "grade")] * 2
    focus(driver, "#flag")
    press(driver, Keys.SPACE)
    kept(driver)
    assert stored(grades)[2:] == [("ana", "flag")]
    # A link opens what it leads to; the browser is kept from going there.
    opened = """
        window.led = [];
        document.addEventListener("click", (event) => {
          const link = event.target.closest(".links a");
          if (link) { event.preventDefault(); window.led.push(link.href); }
        });
    """
    driver.execute_script(opened)
    focus(driver, ".links a")
    press(driver, Keys.ENTER)
    assert "aladin" in driver.execute_script("return window.led.join()")
    assert not active(driver, "comment")


def test_all_around_works_by_keyboard_alone(driver: WebDriver, grades: Path) -> None:
    focus(driver, "#to-single")
    press(driver, Keys.ENTER)
    one_by_one(driver, "1 of 40")
    # What was chosen in a list leaves the keys to the grades.
    focus(driver, "#stretch")
    Select(driver.find_element(By.ID, "stretch")).select_by_visible_text("zscale")
    drawn(driver, "zscale")
    press(driver, "b")
    one_by_one(driver, "2 of 40")
    assert driver.execute_script("return document.getElementById('stretch').value") == "zscale"
    focus(driver, "#undo")
    press(driver, Keys.SPACE)
    one_by_one(driver, "1 of 40")
    kept(driver)
    focus(driver, "#help-button")
    press(driver, Keys.ENTER)
    until(driver, lambda: driver.find_element(By.ID, "help").is_displayed())
    press(driver, Keys.ESCAPE)
    focus(driver, "#to-mosaic")
    press(driver, Keys.SPACE)
    mosaic(driver)
    press(driver, Keys.ENTER)  # on a tile
    kept(driver)
    assert [kind for _, kind in stored(grades)] == ["grade", "undo", "flag"]
    assert complaints(driver) == []


def test_a_click_leaves_the_keys_to_the_candidates(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
        driver.find_element(By.ID, "to-single").click()
        one_by_one(driver, "1 of 40")
        driver.find_element(By.ID, "no-light").click()
        drawn(driver, "without_lens_light=true")
        press(driver, Keys.SPACE)  # a flag
        kept(driver)
        driver.find_element(By.CSS_SELECTOR, '[data-grade="A"]').click()
        one_by_one(driver, "2 of 40")
        press(driver, Keys.ENTER)  # the comment
        assert active(driver, "comment")
        kept(driver)
    assert [kind for _, kind in stored(grades)] == ["flag", "grade"]


def held(driver: WebDriver, key: str, times: int) -> None:
    asked = {"type": "keyDown", "key": key, "text": key, "code": f"Key{key.upper()}"}
    for k in range(times):
        driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**asked, "autoRepeat": k > 0})
    driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})


def test_a_key_grades_what_is_on_the_page_and_that_once(driver: WebDriver, grades: Path) -> None:
    first_candidate(driver)
    held(driver, "x", 12)
    one_by_one(driver, "2 of 40")
    kept(driver)
    assert len(stored(grades)) == 1
    # The next one is fetched already, the one after it takes its time.
    driver.set_network_conditions(offline=False, latency=1500, throughput=10**6)
    press(driver, "a")
    one_by_one(driver, "3 of 40")
    press(driver, "b", "c", "x", "a")
    driver.delete_network_conditions()
    one_by_one(driver, "4 of 40")
    kept(driver)
    assert len(stored(grades)) == 3
    assert "3 graded" in text(driver, "progress")


def test_a_held_tab_walks_and_an_address_that_is_none_begins_with_those_left(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(f"{service.url}/#view=single&at=abc")
        begin(driver, shown="#stage img")
        one_by_one(driver, "1 of 40")
        focus(driver, "#to-mosaic")
        tab = {"type": "rawKeyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for k in range(3):
            driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**tab, "autoRepeat": k > 0})
        assert active(driver, "stretch")
        assert complaints(driver) == []


def flag(driver: WebDriver, count: int) -> None:
    for _ in range(count):
        press(driver, "f", Keys.ARROW_RIGHT)
    kept(driver)


def test_the_flagged_ones_from_first_to_last(driver: WebDriver, keep: Keep) -> None:
    press(driver, Keys.ARROW_RIGHT)
    flag(driver, 4)  # candidates 2 to 5
    keys(driver, "o")
    one_by_one(driver, "1 of 4")
    keys(driver, "x")
    one_by_one(driver, "2 of 4")
    # Undo shows what it took back.
    keys(driver, "u")
    one_by_one(driver, "1 of 4")
    assert text(driver, "title").startswith("Candidate 2 ")
    assert text(driver, "said") == "Undone. Candidate 2 has no grade and a flag."
    keys(driver, "x")
    one_by_one(driver, "2 of 4")
    keys(driver, "x")
    one_by_one(driver, "3 of 4")
    kept(driver)
    # One that was left goes on there, among the flagged ones.
    driver.refresh()
    one_by_one(driver, "3 of 4")
    assert text(driver, "title").startswith("Candidate 4 ")
    # From the mosaic, at the first that has no grade.
    keys(driver, "m")
    mosaic(driver)
    keys(driver, "o")
    one_by_one(driver, "3 of 4")
    # One that loses its flag does not take another out of the line.
    keys(driver, "f", Keys.ARROW_RIGHT)
    one_by_one(driver, "3 of 3")
    assert text(driver, "title").startswith("Candidate 5 ")
    keys(driver, Keys.ARROW_LEFT)
    one_by_one(driver, "2 of 3")
    keys(driver, Keys.ARROW_RIGHT)
    one_by_one(driver, "3 of 3")
    keys(driver, "a")
    until(driver, lambda: text(driver, "end") == "That was the last one: 3 graded, 0 left.")
    # Nobody is sent to those left where there are none.
    until(driver, lambda: not driver.find_element(By.ID, "to-left").is_displayed())
    keep(driver, "end")
    keys(driver, "b")  # there is nothing to grade
    keys(driver, "u")
    one_by_one(driver, "3 of 3")
    kept(driver)
    assert "2 graded" in text(driver, "progress")
    assert complaints(driver) == []


def test_flags_taken_away_hide_no_other_flagged_one(
    large_run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(large_run.url, grades=str(grades)) as service:
        asked = f"{service.url}/api/inspection"
        given = {"grader": "ana", "count": "50"}
        told = requests.get(f"{asked}/objects", given, timeout=60).json()["objects"]
        marks = [
            {"key": f"k{k}", "kind": "flag", "object": o["object"]} for k, o in enumerate(told)
        ]
        posted = requests.post(f"{asked}/events?grader=ana", json={"events": marks}, timeout=60)
        assert posted.ok
        driver = open_page(f"{service.url}/#view=mosaic&which=flagged")
        viewport(driver, 700, 500)
        begin(driver)
        until(driver, lambda: text(driver, "where").endswith("of 50"))
        first = tiles(driver)
        assert len(first) < 25  # three pages, the second of which is here already
        for _ in range(3):
            press(driver, "f", Keys.ARROW_RIGHT)
        kept(driver)
        seen = first
        while driver.find_element(By.ID, "next").is_enabled():
            keys(driver, "n")
            begins = len(seen) - 3 + 1
            until(driver, partial(begins_at, driver, begins))
            assert text(driver, "where").endswith("of 47")
            seen = seen + tiles(driver)
        assert seen == list(range(1, 51))
        last = tiles(driver)[0]
        keys(driver, "p")
        until(driver, lambda: max(tiles(driver)) < last)
        assert max(tiles(driver)) == last - 1
        keys(driver, "m")
        until(driver, lambda: text(driver, "where").endswith("of 10,000"))
        assert complaints(driver) == []


def tiles(driver: WebDriver) -> list[int]:
    """Which candidates are on the page."""
    read = "return [...document.querySelectorAll('.tile')].map((e) => e.getAttribute('aria-label'))"
    return [int(re.findall(r"\d+", label)[0]) for label in driver.execute_script(read)]


def test_undo_of_what_is_not_shown_is_said(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with open_store(grades) as store:
        import_rows(store, pa.table({"object_id": [999_999], "grade": ["A"]}), "ana")
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
        keys(driver, "u")
        until(driver, lambda: "nothing that is shown" in text(driver, "said"))
        kept(driver)
        assert complaints(driver) == []


def test_what_was_seen_stays_seen(large_run: RunDirectory, grades: Path, open_page: Open) -> None:
    with serving(large_run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        viewport(driver, 1400, 900)
        begin(driver)
        until(driver, lambda: text(driver, "where") == "1–50 of 10,000")
        for key, first in (("n", 51), ("n", 101), ("p", 51), ("p", 1), ("n", 51)):
            keys(driver, key)
            until(driver, partial(begins_at, driver, first))
        kept(driver)
        assert "100 seen" in text(driver, "progress")
        driver.get("about:blank")
        driver.get(service.url)
        until(driver, partial(begins_at, driver, 101))


def begins_at(driver: WebDriver, first: int) -> bool:
    return text(driver, "where").startswith(f"{first}–")
