from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lenspipe.errors import InputError
from lenspipe.models.card import METADATA_KEY, read_card, write_card
from tests import toy_models


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toy_models.make_member(tmp_path / "toy.onnx", zero_point_mag=25.0)
    return tmp_path / "toy.onnx"


def test_a_card_comes_back_as_it_was_written(path: Path) -> None:
    card = read_card(path)
    again = write_card(onnx.load(str(path)), card, path)
    assert read_card(path) == again == card
    spec = card.images[0].spec()
    assert (spec.shape, spec.zero_point_mag) == ((3, 8, 8), 25.0)


def test_changed_weights_are_refused(path: Path) -> None:
    model = onnx.load(str(path))
    kernel = model.graph.initializer[0]
    values = numpy_helper.to_array(kernel).copy()
    values[5] += np.float32(1e-6)
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="weights"):
        read_card(path)


def test_a_file_without_a_card_is_refused(path: Path) -> None:
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="a model card"):
        read_card(path)


def test_a_card_with_an_unknown_key_is_refused(path: Path) -> None:
    model = onnx.load(str(path))
    entry = next(e for e in model.metadata_props if e.key == METADATA_KEY)
    entry.value = entry.value.replace('"licence"', '"license"')
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"card\.licen[cs]e"):
        read_card(path)


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    with pytest.raises(InputError, match="no such file"):
        read_card(file)
    file.write_bytes(b"not a network")
    with pytest.raises(InputError, match="an ONNX file"):
        read_card(file)


def test_weights_outside_the_file_are_refused_unread(path: Path, tmp_path: Path) -> None:
    """Also inside a node's attribute, where a constant may hide."""
    model = onnx.load(str(path))
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    onnx.save(model, str(tmp_path / "b.onnx"))
    with pytest.raises(InputError, match="hidden kept outside"):
        read_card(tmp_path / "b.onnx")
