"""Model files that are damaged, absurd or meant ill: one line of error, no traceback, no hang."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lenspipe.errors import InputError
from lenspipe.models import graph
from lenspipe.models.card import DIGEST_KEY, METADATA_KEY, model_sha256, read_card, read_model
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.models.locate import find
from lenspipe.models.session import Member
from lenspipe.storage.refusals import is_refusal
from lenspipe.storage.store import is_storage_fault
from tests import toy_models

SEED = int(os.environ.get("LENSPIPE_FUZZ_SEED", random.SystemRandom().randrange(2**31)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toy_models.make_member(tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        Member.load(path, "cpu", batch_size=2)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 2000
    return text


def resealed(model: onnx.ModelProto, path: Path) -> Path:
    """Save with the digest that belongs to the changed model: what an attacker does."""
    for entry in model.metadata_props:
        if entry.key == DIGEST_KEY:
            entry.value = model_sha256(model)
    onnx.save(model, str(path))
    return path


def edited_card(path: Path, out: Path, **changes: Any) -> Path:
    model = onnx.load(str(path))
    entry = next(e for e in model.metadata_props if e.key == METADATA_KEY)
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    return resealed(model, out)


def with_node(path: Path, out: Path, node: onnx.NodeProto) -> Path:
    model = onnx.load(str(path))
    model.graph.node.append(node)
    return resealed(model, out)


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    """In a shipped file, at places drawn anew each time: weights, graph, card and digest alike."""
    print(f"LENSPIPE_FUZZ_SEED={SEED}")  # noqa: T201  # to run a failure again
    content = find("ps1-photometry").read_bytes()
    draw = random.Random(SEED)
    for _ in range(150):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        file = tmp_path / "flipped.onnx"
        file.write_bytes(flipped)
        try:
            read_card(file)
        except InputError as error:
            assert "\n" not in str(error)
        else:  # the digest's own name, without which only the weights are held
            assert DIGEST_KEY not in {e.key for e in onnx.load(str(file)).metadata_props}, place


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    print(f"LENSPIPE_FUZZ_SEED={SEED}")  # noqa: T201  # to run a failure again
    content = find("ps1-photometry").read_bytes()
    file = tmp_path / "cut.onnx"
    draw = random.Random(SEED)
    for length in (0, 1, len(content) - 1, *(draw.randrange(len(content)) for _ in range(60))):
        file.write_bytes(content[:length])
        with pytest.raises(InputError):
            read_card(file)


def test_a_changed_graph_is_refused(path: Path, tmp_path: Path) -> None:
    """Same weights, same card, another computation."""
    model = onnx.load(str(path))
    model.graph.node[-2].op_type = "Mean"
    onnx.save(model, str(tmp_path / "a.onnx"))
    assert "graph and card: expected SHA-256" in refusal(tmp_path / "a.onnx")


def test_a_changed_card_is_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    entry = next(e for e in model.metadata_props if e.key == METADATA_KEY)
    entry.value = entry.value.replace("0.25", "0.26")
    onnx.save(model, str(tmp_path / "a.onnx"))
    assert "graph and card: expected SHA-256" in refusal(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "place",
    ["/etc/hostname", "../../../etc/hostname", "link", "weights.bin", "", "//host/share", "~/x"],
)
@pytest.mark.parametrize("where", ["initialiser", "attribute", "subgraph", "function"])
def test_weights_in_other_files_are_refused(
    path: Path, tmp_path: Path, place: str, where: str
) -> None:
    """Whatever the place: an absolute path, a way out of the folder, a symbolic link, a file beside
    it; and wherever a tensor may hide. The other file is never opened."""
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    (tmp_path / "link").symlink_to("/etc/hostname")
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    model = onnx.load(str(path))
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    if where == "initialiser":
        model.graph.initializer.append(tensor)
    elif where == "attribute":
        model.graph.node.append(constant)
    elif where == "subgraph":
        inner = helper.make_graph([constant], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))
    else:
        inner = helper.make_function("own", "f", [], ["c"], [constant], [])
        model.functions.append(inner)
    text = refusal(resealed(model, tmp_path / "a.onnx"))
    assert "all weights inside the file, found hidden" in text


def test_a_place_without_the_mark_is_refused_too(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    assert "all weights inside" in refusal(resealed(model, tmp_path / "a.onnx"))


def test_foreign_operators_are_refused(path: Path, tmp_path: Path) -> None:
    node = helper.make_node("RunShell", ["image"], ["x"], domain="evil.corp\nname")
    text = refusal(with_node(path, tmp_path / "a.onnx", node))
    assert "RunShell of domain 'evil.corp\\nname'" in text


def test_foreign_operators_inside_of_nodes_are_refused(path: Path, tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("RunShell", [], ["x"], domain="evil")], "inner", [], []
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert "RunShell of domain 'evil'" in refusal(with_node(path, tmp_path / "a.onnx", node))


def test_an_operator_that_does_not_exist_is_refused(path: Path, tmp_path: Path) -> None:
    node = helper.make_node("NoSuchThing", ["image"], ["x"])
    assert "ONNX Runtime runs" in refusal(with_node(path, tmp_path / "a.onnx", node))


def test_own_functions_are_taken(path: Path, tmp_path: Path) -> None:
    """What the model defines itself is no foreign operator."""
    model = onnx.load(str(path))
    double = helper.make_node("Add", ["x", "x"], ["y"])
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Double", ["x"], ["y"], [double], opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].output[:] = ["half"]
    model.graph.node.append(helper.make_node("Double", ["half"], ["logit"], domain="own"))
    member = Member.load(resealed(model, tmp_path / "a.onnx"), "cpu", batch_size=2)
    once = Member.load(path, "cpu", batch_size=2)
    images = {"image": np.ones((2, 3, 8, 8), np.float32)}
    np.testing.assert_allclose(member.predict(images), 2 * once.predict(images), rtol=1e-6)


def test_floods_of_nodes_are_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "MAX_NODES", 100)
    model = onnx.load(str(path))
    chain = [helper.make_node("Identity", [f"x{k}"], [f"x{k + 1}"]) for k in range(200)]
    model.graph.node.extend(chain)
    assert "at most 100 nodes" in refusal(resealed(model, tmp_path / "a.onnx"))


def test_files_larger_than_a_message_are_refused_unread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "MAX_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    assert "at most 100 bytes" in refusal(path)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field as protobuf writes it."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def test_graphs_in_graphs_in_graphs_are_refused(tmp_path: Path) -> None:
    """Deeper than protobuf reads; its writer refuses to make such a file, so the bytes are ours."""
    content = b""
    for _ in range(5000):  # GraphProto.node (1) of NodeProto.attribute (5) of AttributeProto.g (6)
        content = _field(1, _field(5, _field(6, content)))
    (tmp_path / "a.onnx").write_bytes(_field(7, content))
    refusal(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"size_pixels": 10**9},
        {"size_pixels": 0},
        {"size_pixels": -8},
        {"size_pixels": "8.5"},
        {"size_pixels": 4096, "bands": ["g", "r", "i"]},
        {"bands": []},
        {"bands": ["g"] * 100},
        {"bands": [""]},
        {"pixel_scale_arcsec": float("nan")},
        {"pixel_scale_arcsec": float("inf")},
        {"pixel_scale_arcsec": -0.25},
        {"zero_point_mag": float("nan")},
        {"dtype": "object"},
        {"dtype": "float16", "quantum": 1.0},
        {"dtype": "int16"},
        {"dtype": "int16", "quantum": 0.0},
        {"name": ""},
        {"name": "x" * 10_000},
    ],
)
def test_absurd_inputs_are_refused(path: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    image = {**read_card(path).images[0].model_dump(mode="json"), **changes}
    text = refusal(edited_card(path, tmp_path / "a.onnx", images=[image]))
    assert "card.images" in text


@pytest.mark.parametrize(
    "name", ["", "a b", "../a", 'a"b', "a'b", "a\nb", "a;b", "x" * 101, "-a", "a\x00", "<b>"]
)
def test_names_that_no_column_could_have_are_refused(path: Path, tmp_path: Path, name: str) -> None:
    assert "card.name" in refusal(edited_card(path, tmp_path / "a.onnx", name=name))


@pytest.mark.parametrize(
    ("dims", "data"), [([10**9, 10**9], b""), ([4], b"12345"), ([-4], b""), ([2**62, 4], b"")]
)
def test_tensors_that_are_not_what_they_say_are_refused(
    path: Path, tmp_path: Path, dims: list[int], data: bytes
) -> None:
    model = onnx.load(str(path))
    tensor = TensorProto(name="odd", data_type=TensorProto.FLOAT, raw_data=data)
    tensor.dims.extend(dims)
    model.graph.initializer.append(tensor)
    assert "weights" in refusal(resealed(model, tmp_path / "a.onnx"))


@pytest.mark.parametrize("batch", [10**9, 0])
def test_absurd_batches_are_refused(path: Path, tmp_path: Path, batch: int) -> None:
    model = onnx.load(str(path))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = batch
    text = refusal(resealed(model, tmp_path / "a.onnx"))
    assert "batch" in text or "ONNX Runtime runs" in text or "one logit per row" in text


def test_an_output_that_is_no_number_is_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    model.graph.node[-1].output[:] = ["linear"]
    node = helper.make_node("Cast", ["linear"], ["logit"], to=TensorProto.STRING)
    model.graph.node.append(node)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert "output logit: expected floating point" in refusal(resealed(model, tmp_path / "a.onnx"))


def test_an_output_of_another_shape_is_refused(path: Path, tmp_path: Path) -> None:
    """One number for the whole batch: found when the file is opened, not when a row is scored."""
    model = onnx.load(str(path))
    model.graph.node[-1].output[:] = ["linear"]
    model.graph.node.append(helper.make_node("ReduceMean", ["linear"], ["logit"], keepdims=0))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    assert "one logit per row (2), found ()" in refusal(resealed(model, tmp_path / "a.onnx"))


def test_permission_denied_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode bits stop: the system's answer is put in its mouth."""

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE, errno.ENOMEM]
)
@pytest.mark.parametrize("call", ["stat", "read_bytes", "is_file"])
def test_storage_that_refuses_for_now_is_no_mistake_of_the_users(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """A run rests and asks again; it is told from a file that is damaged."""

    def refused(self: Path, **_: Any) -> bytes:
        raise OSError(code, "refused", str(self))

    monkeypatch.setattr(Path, call, refused)
    with pytest.raises(OSError, match="refused") as told:
        read_card(find(str(path)))
    assert is_storage_fault(told.value)
    assert is_refusal(told.value)


def test_a_folder_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(InputError, match="Permission denied"):
        find("some/model.onnx")


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/" * 3000 + "b.onnx", "a\x00b.onnx", "\udcff/x.onnx"]
)
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError):
        find(name)


def test_a_folder_in_a_files_place(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(InputError, match="a model file"):
        describe_ensemble(str(tmp_path / "a.onnx"))
    with pytest.raises(InputError, match="can be read"):
        read_card(tmp_path / "a.onnx")


def test_a_file_that_changes_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Described, then replaced, then opened: what runs must be what was described."""
    path = toy_models.make_ensemble(tmp_path)
    load = Member.load

    def replaced_meanwhile(file: Path, *rest: Any) -> Member:
        toy_models.make_member(file, seed=7)
        return load(file, *rest)

    monkeypatch.setattr(Member, "load", replaced_meanwhile)
    with pytest.raises(InputError, match="changed on loading"):
        load_ensemble(str(path), provider="cpu")


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("donor") / "toy.onnx"
    toy_models.make_member(path)
    return path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_cards_of_any_content_are_taken_or_refused(donor: Path, data: st.DataObject) -> None:
    """One value anywhere in a card becomes something else: a card comes out, or one line."""
    model = onnx.load(str(donor))
    entry = next(e for e in model.metadata_props if e.key == METADATA_KEY)
    card = json.loads(entry.value)
    block = card
    while True:
        key = data.draw(
            st.sampled_from(sorted(block) if isinstance(block, dict) else range(len(block)))
        )
        inner = block[key]
        if not (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            break
        block = inner
    block[key] = data.draw(JSON)
    entry.value = json.dumps(card)
    file = resealed(model, donor.with_name("fuzzed.onnx"))
    try:
        read_model(file)
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_cards_of_any_bytes_are_taken_or_refused(donor: Path, text: bytes) -> None:
    content = donor.read_bytes()
    start = content.index(METADATA_KEY.encode())
    file = donor.with_name("fuzzed.onnx")
    file.write_bytes(content[: start + 30] + text + content[start + 30 + len(text) :])
    try:
        read_model(file)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_tensor_of_no_type_is_told(tmp_path: Path) -> None:
    model = onnx.load(find("ps1-group"))
    model.graph.initializer[0].data_type = 58
    path = tmp_path / "typed.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"weights: expected tensors that are whole, found .*58"):
        read_model(path)
