"""TensorRT's engines between processes, with a builder that writes and reads files as it does."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenspipe.errors import ProviderError
from lenspipe.models import engine_cache, providers
from lenspipe.models import session as session_module
from lenspipe.models.engine_cache import EngineKey, Engines
from lenspipe.models.feed import make_feed
from lenspipe.models.session import Member
from tests import toy_models


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    return tmp_path / "toy.onnx"


class Builder:
    """In place of TensorRT: a CPU session, and an engine file that is written or must be right."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built = 0
        self.read = 0
        self._open = providers.open_session
        monkeypatch.setattr(providers, "open_session", self.open)
        monkeypatch.setattr(session_module, "make_feed", self.feed)

    def open(
        self,
        model: bytes,
        provider: str,
        threads: int,
        device_id: int,
        options: providers.ProviderOptions,
        field: str,
    ) -> Any:
        assert provider == "tensorrt"
        if options.engine_cache is not None:
            self._engine(Path(options.engine_cache) / "toy_sm90.engine")
        return self._open(model, "cpu", threads, device_id, options, field)

    def _engine(self, file: Path) -> None:
        if file.exists():
            if file.read_bytes() != b"engine":
                raise ProviderError("provider tensorrt: deserialization failed")
            self.read += 1
        else:
            self.built += 1
            file.write_bytes(b"engine")

    @staticmethod
    def feed(session: Any, output: str, specs: Any, _provider: str, device: int) -> Any:
        return make_feed(session, output, specs, "cpu", device)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(monkeypatch)


def load(path: Path, cache: Path | None, batch_size: int = 4, *, fp16: bool = False) -> Member:
    options = providers.ProviderOptions(engine_cache=None if cache is None else str(cache))
    if fp16:
        options = providers.ProviderOptions(engine_cache=str(cache), fp16=True)
    return Member.load(path, "tensorrt", batch_size=batch_size, options=options)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_the_second_process_builds_nothing(path: Path, tmp_path: Path, builder: Builder) -> None:
    cache = tmp_path / "cache"
    images = {"image": np.ones((5, 3, 8, 8), np.float32)}
    first = load(path, cache).predict(images)
    second = load(path, cache)
    assert (builder.built, builder.read) == (1, 1)
    assert second.engines is not None
    assert second.engines.folder != entries(cache)[0]
    np.testing.assert_array_equal(second.predict(images), first)


def test_what_an_engine_depends_on_makes_another(
    path: Path, tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    load(path, cache)
    load(path, cache, batch_size=8)
    load(path, cache, fp16=True)
    monkeypatch.setattr(providers, "engine_versions", lambda: "onnxruntime 2, tensorrt 11")
    load(path, cache)
    toy_models.make_member(path, bias=0.25)
    load(path, cache)
    assert builder.built == len(entries(cache)) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest", "no manifest", "elsewhere"])
def test_a_damaged_entry_is_built_anew(
    path: Path, tmp_path: Path, builder: Builder, damage: str
) -> None:
    cache = tmp_path / "cache"
    load(path, cache)
    entry = entries(cache)[0]
    engine, manifest = entry / "toy_sm90.engine", entry / "manifest.json"
    if damage == "flip":
        engine.write_bytes(b"engjne")
    elif damage == "cut":
        engine.write_bytes(b"eng")
    elif damage == "gone":
        engine.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:20])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({"../toy.onnx": "0" * 64}), encoding="utf-8")
    load(path, cache)
    assert (builder.built, builder.read) == (2, 0)
    load(path, cache)
    assert (builder.built, builder.read) == (2, 1)
    assert len(entries(cache)) == 1


def test_an_entry_that_tensorrt_does_not_take_is_built_anew(
    path: Path, tmp_path: Path, builder: Builder
) -> None:
    """Whole by its manifest, and yet of another kind: versions that the name did not tell apart."""
    cache = tmp_path / "cache"
    load(path, cache)
    entry = entries(cache)[0]
    (entry / "toy_sm90.engine").write_bytes(b"other")
    (entry / "manifest.json").write_text(json.dumps(engine_cache._files(entry)), encoding="utf-8")
    manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
    manifest.pop("manifest.json")
    (entry / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    load(path, cache)
    load(path, cache)
    assert (builder.built, builder.read) == (2, 1)


def test_a_folder_that_cannot_be_written_costs_no_run(
    path: Path, tmp_path: Path, builder: Builder
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    load(path, tmp_path / "file" / "cache")
    load(path, tmp_path / "file" / "cache")
    assert builder.built == 2


def test_processes_that_build_at_once_leave_one_whole_entry(tmp_path: Path) -> None:
    key = EngineKey("0" * 64, "device", "versions", {"image": (4, 3, 8, 8)}, "fp32")
    copies = [Engines(tmp_path, key) for _ in range(8)]
    for copy in copies:
        (copy.folder / "a.engine").write_bytes(b"x" * 1000)
    threads = [threading.Thread(target=copy.publish) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.name for entry in entries(tmp_path)] == [key.name]
    assert Engines(tmp_path, key).reused


def test_the_working_copy_goes_with_its_member(tmp_path: Path) -> None:
    key = EngineKey("0" * 64, "device", "versions", {}, "fp32")
    engines = Engines(tmp_path, key)
    folder = engines.folder
    assert folder.is_dir()
    del engines
    assert not folder.exists()


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"LENSPIPE_ENGINE_CACHE": "/scratch/engines"}, Path("/scratch/engines")),
        ({"LENSPIPE_ENGINE_CACHE": ""}, None),
        ({"XDG_CACHE_HOME": "/cache"}, Path("/cache/lenspipe/engines")),
        ({"HOME": "/home/user"}, Path("/home/user/.cache/lenspipe/engines")),
    ],
)
def test_where_engines_are_kept(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: Path | None
) -> None:
    for name in ("LENSPIPE_ENGINE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert engine_cache.root() == wanted
