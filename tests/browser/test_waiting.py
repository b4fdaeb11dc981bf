"""What waits in a browser is kept for its person and its run, and what is refused is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.serve.grades.scheme import parse_scheme
from lenspipe.serve.grades.store import open_store
from tests.browser.conftest import Open
from tests.browser.page import (
    Keep,
    begin,
    first_candidate,
    kept,
    keys,
    login,
    mosaic,
    one_by_one,
    press,
    states,
    stored,
    text,
    until,
)
from tests.serve.conftest import published_run
from tests.serve.running import serving

pytestmark = pytest.mark.timeout(240)
ANA, BEN, LATER = "token-of-ana-0123456", "token-of-ben-0123456", "later-token-of-ana-0"
WITHOUT_C = {
    "grades": [
        {"name": "A", "key": "a", "label": "sure", "value": 2},
        {"name": "B", "key": "b", "label": "perhaps", "value": 1},
    ]
}


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = published_run(tmp_path_factory.mktemp("other"))
    run.write_json(RUN, {**(run.read_json(RUN) or {}), "created": "2026-02-02T00:00:00"})
    return run


def tokens(folder: Path, **given: str) -> Path:
    file = folder / "tokens.yaml"
    file.write_text("".join(f"{name}: {token}\n" for name, token in given.items()))
    return file


def waits(driver: WebDriver, count: int) -> None:
    until(driver, lambda: f"{count} not kept yet" in text(driver, "saving"))


def test_a_token_that_changed_costs_no_grade(
    run: RunDirectory, tmp_path: Path, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades), token_file=tokens(tmp_path, ana=ANA)) as service:
        driver = open_page(service.url)
        login(driver, ANA)
        mosaic(driver)
        press(driver, "f")
        kept(driver)
    press(driver, Keys.ARROW_RIGHT, "f", Keys.ARROW_RIGHT, "f")
    waits(driver, 2)
    file = tokens(tmp_path, ana=LATER, ben=BEN)
    with serving(run.url, grades=str(grades), token_file=file, port=service.port):
        until(driver, lambda: driver.current_url.endswith("/login"))
        login(driver, "a-token-of-nobody-01")
        alert = '[role="alert"]'
        until(driver, lambda: driver.find_element(By.CSS_SELECTOR, alert).is_displayed())
        assert "nobody's" in driver.find_element(By.CSS_SELECTOR, alert).text
        login(driver, LATER)
        mosaic(driver)
        until(driver, lambda: "3 flagged" in text(driver, "progress"))
        kept(driver)
    assert stored(grades) == [("ana", "flag")] * 3


def test_what_is_refused_is_said_until_it_is_dismissed_and_takes_nothing_along(
    run: RunDirectory, grades: Path, open_page: Open, keep: Keep
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
        first_candidate(driver)
        driver.execute_async_script("setTimeout(arguments[0], 1000)")  # the next one is there
    keys(driver, "f")
    keys(driver, "c")
    waits(driver, 2)
    one_by_one(driver, "2 of 40")
    keys(driver, "b")
    waits(driver, 3)
    with open_store(grades) as store:
        store.set_scheme(parse_scheme(WITHOUT_C))
    with serving(run.url, grades=str(grades), port=service.port):
        kept(driver)
        assert text(driver, "refused-title") == "1 not taken"
        assert "grade C, candidate 1: grade: expected" in text(driver, "refused-list")
        # The page goes on by itself.
        one_by_one(driver, "3 of 40")
        assert "1 flagged, 1 graded" in text(driver, "progress")
        no_more = '[data-grade="C"]'
        until(driver, lambda: not driver.find_elements(By.CSS_SELECTOR, no_more))
        keep(driver, "refused")
        driver.refresh()
        one_by_one(driver, "3 of 40")
        assert driver.find_element(By.ID, "refused").is_displayed()
        driver.find_element(By.ID, "dismiss").click()
        assert not driver.find_element(By.ID, "refused").is_displayed()
        driver.refresh()
        one_by_one(driver, "3 of 40")
        assert not driver.find_element(By.ID, "refused").is_displayed()
    assert stored(grades) == [("ana", "flag"), ("ana", "grade")]


def test_an_undo_of_what_is_refused_takes_nothing_else_back(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
        first_candidate(driver)
        keys(driver, "b")
        kept(driver)
        one_by_one(driver, "2 of 40")
    keys(driver, "c", "u")
    waits(driver, 2)
    with open_store(grades) as store:
        store.set_scheme(parse_scheme(WITHOUT_C))
    with serving(run.url, grades=str(grades), port=service.port):
        kept(driver)
        assert text(driver, "refused-title") == "1 not taken"
    assert list(states(grades)["ana"].grades.values()) == ["B"]


def test_a_name_that_the_service_refuses_is_asked_for_again(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        name = driver.find_element(By.ID, "name")
        until(driver, name.is_displayed)
        driver.execute_script("arguments[0].value = 'Ana\\u00a0Ruiz'", name)
        name.send_keys(Keys.ENTER)
        until(driver, lambda: "name: expected" in text(driver, "name-wrong"))
        assert name.is_displayed()
        name.clear()
        begin(driver, "Ana Ruiz")
        assert text(driver, "who") == "Ana Ruiz"
        # One that an earlier service took.
        driver.execute_script("localStorage.setItem('lenspipe grader', 'Ana\\u200b')")
        driver.get(service.url)
        until(driver, lambda: "name: expected" in text(driver, "name-wrong"))
        driver.find_element(By.ID, "name").clear()
        begin(driver, "ana")
        press(driver, "f")
        kept(driver)
    assert stored(grades) == [("ana", "flag")]


def test_another_run_at_the_same_address_gets_nothing_of_the_first(
    run: RunDirectory, other_run: RunDirectory, tmp_path: Path, grades: Path, open_page: Open
) -> None:
    others = tmp_path / "other.sqlite"
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
    press(driver, "f", Keys.ARROW_RIGHT, "f")
    waits(driver, 2)
    with serving(other_run.url, grades=str(others), port=service.port):
        until(driver, lambda: "another run" in text(driver, "saving"))
        driver.get(service.url)
        mosaic(driver)
        assert "2 of another run" in text(driver, "others")
        press(driver, "f")
        kept(driver)
    assert stored(others) == [("ana", "flag")]
    with serving(run.url, grades=str(grades), port=service.port):
        driver.get(service.url)
        until(driver, lambda: "2 flagged" in text(driver, "progress"))
        assert text(driver, "others") == ""
    assert stored(grades) == [("ana", "flag")] * 2
    assert len(stored(others)) == 1


def test_two_windows_lose_nothing_of_each_other(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver)
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(service.url)
        mosaic(driver)
        second = driver.current_window_handle
    driver.switch_to.window(first)
    press(driver, "f", Keys.ARROW_RIGHT, "f", Keys.ARROW_RIGHT, "f")
    waits(driver, 3)
    driver.switch_to.window(second)
    press(driver, *[Keys.ARROW_RIGHT] * 5, "f")
    waits(driver, 4)
    driver.switch_to.window(first)
    driver.close()
    driver.switch_to.window(second)
    with serving(run.url, grades=str(grades), port=service.port):
        kept(driver)
        assert "4 flagged" in text(driver, "progress")
    with open_store(grades, writable=False) as store:
        events = store.events()
    assert len({each.key for each in events}) == len(events) == 4
    ranks = {each["object_id"]: k for k, each in enumerate(ranked(run))}
    assert [ranks[each.object_id] for each in events] == [0, 1, 2, 5]  # as they were done


def ranked(run: RunDirectory) -> list[dict[str, object]]:
    from lenspipe.catalogue.tables import open_table

    found: list[dict[str, object]] = open_table(run, "candidates").to_pylist()
    return found


def test_nobodys_grades_become_anothers(
    run: RunDirectory, tmp_path: Path, grades: Path, open_page: Open
) -> None:
    file = tokens(tmp_path, ana=ANA, ben=BEN)
    with serving(run.url, grades=str(grades), token_file=file) as service:
        driver = open_page(service.url)
        login(driver, ANA)
        mosaic(driver)
    press(driver, "f", Keys.ARROW_RIGHT, "f")
    waits(driver, 2)
    driver.get("about:blank")
    with serving(run.url, grades=str(grades), token_file=file, port=service.port):
        driver.get(f"{service.url}/login")
        login(driver, BEN)
        mosaic(driver)
        assert "2 of ana" in text(driver, "others")
        press(driver, "f")
        kept(driver)
        assert stored(grades) == [("ben", "flag")]
        driver.find_element(By.ID, "not-you").click()
        until(driver, lambda: driver.current_url.endswith("/login"))
        assert driver.get_cookies() == []
        login(driver, ANA)
        mosaic(driver)
        until(driver, lambda: "2 flagged" in text(driver, "progress"))
        # Somebody else logs in beside a page that is still open.
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(f"{service.url}/login")
        login(driver, BEN)
        mosaic(driver)
        driver.switch_to.window(first)
        press(driver, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "f")
        until(driver, lambda: "the token of ben" in text(driver, "saving"))
    assert sorted(stored(grades)) == [("ana", "flag")] * 2 + [("ben", "flag")]


def test_without_tokens_another_name_is_another_person(
    run: RunDirectory, grades: Path, open_page: Open
) -> None:
    with serving(run.url, grades=str(grades)) as service:
        driver = open_page(service.url)
        begin(driver, "ana")
        press(driver, "f")
        kept(driver)
        driver.find_element(By.ID, "not-you").click()
        name = driver.find_element(By.ID, "name")
        until(driver, name.is_displayed)
        name.send_keys(Keys.ESCAPE)
        until(driver, lambda: not name.is_displayed())
        assert text(driver, "who") == "ana"
        driver.find_element(By.ID, "not-you").click()
        until(driver, name.is_displayed)
        name.send_keys("ben", Keys.ENTER)
        until(driver, lambda: text(driver, "who") == "ben")
        mosaic(driver)
        press(driver, "f")
        kept(driver)
    assert stored(grades) == [("ana", "flag"), ("ben", "flag")]
