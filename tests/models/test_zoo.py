from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from lenspipe.errors import InputError
from lenspipe.models import locate, self_test, zoo
from lenspipe.models.card import read_card, write_card
from tests import toy_models


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "zoo"
    toy_models.make_ensemble(folder)
    monkeypatch.setattr(locate, "folder", lambda: folder)
    return folder


def test_names_and_paths_are_found(shipped: Path, tmp_path: Path) -> None:
    assert zoo.find("toy") == shipped / "toy.yaml"
    assert zoo.find("toy-b") == shipped / "toy-b.onnx"
    shutil.copy(shipped / "toy-a.onnx", tmp_path / "mine.onnx")
    assert zoo.find("mine.onnx", base=tmp_path) == tmp_path / "mine.onnx"


def test_an_unknown_name_lists_what_there_is(shipped: Path) -> None:
    with pytest.raises(InputError, match="toy, toy-a, toy-b, found 'tyo'"):
        zoo.find("tyo")
    with pytest.raises(InputError, match=r"nothing at .*tyo\.onnx"):
        zoo.find("tyo.onnx", base=shipped)


def test_list(shipped: Path) -> None:
    entries = {entry.name: entry for entry in zoo.list_models()}
    assert {name: e.kind for name, e in entries.items()} == {
        "toy": "ensemble",
        "toy-a": "network",
        "toy-b": "network",
    }
    assert entries["toy-a"].task == "lens_finding"
    assert entries["toy"].bands == entries["toy-a"].bands == ("g", "r", "i")


def test_show_and_verify_are_plain(shipped: Path) -> None:
    assert zoo.show("toy-a")["images"][0]["bands"] == ["g", "r", "i"]
    shown = json.loads(json.dumps(zoo.show("toy")))
    assert shown["member_names"] == ["toy-a", "toy-b"]
    assert dict(zoo.verify("toy"))["hash"] == shown["model_hash"]


def test_verify_with_and_without_a_self_test(shipped: Path) -> None:
    self_test.add(shipped / "toy-a.onnx", scale=5.0)
    found = zoo.examine("toy")
    difference = found.self_test["toy-a"]
    assert difference is not None
    assert difference <= read_card(shipped / "toy-a.onnx").self_test.tolerance  # type: ignore[union-attr]  # just added
    assert found.self_test["toy-b"] is None
    assert zoo.examine("toy-a").self_test.keys() == {"toy-a"}


def test_other_logits_than_the_card_has_are_refused(shipped: Path) -> None:
    path = shipped / "toy-a.onnx"
    card = self_test.add(path)
    assert card.self_test is not None
    logits = (card.self_test.logits[0] + 0.01, *card.self_test.logits[1:])
    wrong = card.self_test.model_copy(update={"logits": logits})
    write_card(onnx.load(str(path)), card.model_copy(update={"self_test": wrong}), path)
    with pytest.raises(InputError, match="self-test"):
        zoo.examine("toy")


def test_self_test_input_is_what_it_always_was(shipped: Path) -> None:
    """Numbers of golden-ratio multiples, worked out by hand: 2 * 0.618034 - 1 and so on."""
    images = self_test.images(read_card(shipped / "toy-a.onnx"), rows=2, scale=10.0)
    assert images["image"].shape == (2, 3, 8, 8)
    assert images["image"].ravel()[:3] == pytest.approx([2.36068, -5.27864, 7.08204], abs=1e-4)


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_model_verifies(name: str) -> None:
    found = zoo.examine(name)
    assert all(difference is not None for difference in found.self_test.values())


@pytest.mark.parametrize("path", sorted(zoo.folder().glob("*.onnx")), ids=lambda path: path.stem)
def test_shipped_networks_say_nothing_of_the_machine_that_made_them(path: Path) -> None:
    assert b"stack_trace" not in path.read_bytes()
