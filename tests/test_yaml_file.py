"""Texts that would cost minutes, gigabytes or a crash to read as YAML: refused at once."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest
import yaml

from lenspipe import yaml_file
from lenspipe.errors import InputError
from lenspipe.yaml_file import MAX_BYTES, parse_yaml, read_yaml

M = MAX_BYTES


def laughs(link: str) -> str:
    """Nine levels of nine aliases each: 387 million values in 400 bytes."""
    first = "a0: &a0 {x: 1, y: 2}\n"
    return first + "".join(
        f"a{k}: &a{k} {link.format(','.join([f'*a{k - 1}'] * 9))}\n" for k in range(1, 10)
    )


# Name -> (text, what the refusal says; empty where the text is taken).
TEXTS = {
    "laughs": (laughs("[{}]"), "aliases that stand for more than"),
    "merges": (laughs("{{<<: [{}]}}"), "aliases that stand for more than"),
    "an anchor in itself": ("x: &a [*a]", "an anchor that holds itself"),
    "a merge of itself": ("x: &a {<<: *a}", "an anchor that holds itself"),
    "brackets": ("[" * M, "nested more than"),
    "braces": ("{a: " * (M // 4), "nested more than"),
    "dashes": ("- " * (M // 2), "nested more than"),
    "questions": ("? " * (M // 2), "nested more than"),
    "keys": ("".join(f"k{k}: 1\n" for k in range(90_000)), "more than 20,000 values"),
    "one key": ("a: 1\n" * (M // 5), "more than 20,000 values"),
    "aliases": ("- &a x\n" + "- *a\n" * (M // 6), "more than 20,000 values"),
    "anchors": ("".join(f"- &a{k} x\n" for k in range(70_000)), "more than 20,000 values"),
    "documents": ("---\n" * (M // 4), "more than 20,000 values"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "sexagesimal": ("x: 1" + ":1" * (M // 2 - 4), "text of more than"),
    "digits": ("x: " + "1" * (M - 4), "text of more than"),
    "digits that int() refuses": ("x: " + "1" * 5000, "4300"),
    "long text": ("x: |\n" + " a\n" * (M // 3), "text of more than"),
    "NUL": ("a: b\x00", "special characters are not allowed|control characters"),
    "escaped NUL": (r'x: "\0"', "a NUL"),
    "half a character": (r'x: "\ud800"', "[Uu]nicode|half a character"),
    "tabs": ("\t" * M, "cannot start any token"),
    "an unknown tag": ("x: !" + "y" * 1000, "could not determine a constructor"),
    "a Python object": ("x: !!python/object/apply:os.system ['true']", "could not determine"),
    "a date that is none": ("x: 2024-99-99", "month must be in"),
    "an unhashable key": ("? [a]\n: b\n", "unhashable|unacceptable key"),
    "an unknown alias": ("x: *nobody", "undefined alias"),
    "blank lines": ("\n" * M, ""),
    "comments": ("#a\n" * (M // 3), ""),
    "nothing": ("", ""),
    "many values": ("[" + "1," * 19_000 + "]", ""),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_megabyte_is_read_or_refused_within_seconds(name: str) -> None:
    text, told = TEXTS[name]
    began = time.process_time()
    if told:
        with pytest.raises((yaml.YAMLError, InputError), match=told):
            parse_yaml(text[:M])
    else:
        parse_yaml(text[:M])
    # About half a second, where the processor is not shared.
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize("name", ["laughs", "brackets", "sexagesimal", "escaped NUL"])
def test_without_the_parser_in_c_the_same_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, told = TEXTS[name]
    monkeypatch.setattr(yaml_file, "_Fastest", yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError, match=told):
        parse_yaml(text[: 1 << 16])


def test_aliases_and_merges_of_a_survey_are_taken() -> None:
    content = parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]\n")
    assert content == {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": [{"b": 1}, {"b": 1}]}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"x: " + b"a" * MAX_BYTES, "YAML of at most"),
        (b"name: \xff\xfe", "readable YAML"),
        ("name: a".encode("utf-16"), "readable YAML"),
        (laughs("[{}]").encode(), "readable YAML"),
    ],
)
def test_a_file_that_is_refused_is_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "survey.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_yaml(path, "survey")
    assert str(caught.value).startswith(f"survey: expected {told}")
    assert "\n" not in str(caught.value)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match="YAML of at most"):
        read_yaml(Path("/dev/zero"), "survey")


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, OSError), (errno.EMFILE, OSError), (errno.EACCES, InputError)]
)
def test_storage_that_refuses_for_now_is_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refused(self: Path, *_: object) -> None:
        raise OSError(code, "refused", str(self))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(kind, match="refused"):
        read_yaml(tmp_path / "ensemble.yaml", "ensemble")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml(path, "survey") == {"name": "a"}
