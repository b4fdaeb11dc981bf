"""What tests do with a page: wait, read, press keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from lenspipe.serve.grades.state import GraderState, states_of
from lenspipe.serve.grades.store import open_store

Keep = Callable[[WebDriver, str], None]


def until(driver: WebDriver, done: Callable[[], object], seconds: float = 30.0) -> None:
    WebDriverWait(driver, seconds, poll_frequency=0.05).until(lambda _: done())


def text(driver: WebDriver, name: str) -> str:
    """Of an element, in one step: the page may draw it anew meanwhile."""
    read = "return document.getElementById(arguments[0])?.textContent ?? ''"
    return str(driver.execute_script(read, name)).strip()


def begin(driver: WebDriver, name: str = "ana", shown: str = ".tile img") -> None:
    """Give a name, and wait for pictures."""
    until(driver, lambda: driver.find_element(By.ID, "name").is_displayed())
    driver.find_element(By.ID, "name").send_keys(name, Keys.ENTER)
    until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, shown))


def press(driver: WebDriver, *keys: str) -> None:
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def kept(driver: WebDriver) -> None:
    until(driver, lambda: text(driver, "saving") == "all kept")


def loaded(driver: WebDriver) -> bool:
    return bool(
        driver.execute_script(
            "return [...document.querySelectorAll('#view img')]"
            ".every((i) => i.complete && i.naturalWidth > 0)"
        )
    )


def complaints(driver: WebDriver) -> list[str]:
    return [str(line["message"]) for line in _log(driver, "browser")]


def _log(driver: Any, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = driver.get_log(kind)
    return found


def hosts(driver: WebDriver) -> set[str]:
    """All that the browser asked anything of."""
    found = set()
    for line in _log(driver, "performance"):
        told = json.loads(line["message"])["message"]
        if told["method"] == "Network.requestWillBeSent":
            url = str(told["params"]["request"]["url"])
            if url.startswith("http"):
                found.add(url.split("/")[2])
    return found


def viewport(driver: WebDriver, width: int, height: int, touch: bool = False) -> None:
    """What the page has of the screen, without the window's own bars."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})


def focus(driver: WebDriver, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).focus()", selector)


def one_by_one(driver: WebDriver, where: str) -> None:
    """Until that one is on the page and can be graded."""
    until(driver, lambda: text(driver, "where") == where)
    shown = "return document.querySelector('.single')?.getAttribute('aria-busy')"
    until(driver, lambda: driver.execute_script(shown) == "false")


def keys(driver: WebDriver, *typed: str) -> None:
    """Pressed where no control has the focus."""
    for key in typed:
        driver.execute_script("document.activeElement.blur()")
        press(driver, key)


def first_candidate(driver: WebDriver) -> None:
    """From the mosaic of 40 to the first of them alone."""
    keys(driver, "o")
    one_by_one(driver, "1 of 40")


def login(driver: WebDriver, token: str) -> None:
    until(driver, lambda: driver.find_elements(By.NAME, "token"))
    driver.find_element(By.NAME, "token").send_keys(token, Keys.ENTER)


def mosaic(driver: WebDriver) -> None:
    until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".tile img"))


def states(grades: Path) -> dict[str, GraderState]:
    with open_store(grades, writable=False) as store:
        return states_of(store.events())


def stored(grades: Path) -> list[tuple[str, str]]:
    """(grader, kind) of all events."""
    with open_store(grades, writable=False) as store:
        return [(each.grader, each.kind) for each in store.events()]
