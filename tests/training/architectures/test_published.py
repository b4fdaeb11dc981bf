"""ResNet-18, EfficientNet-B0 and the small vision transformer: what was published, and our choices.

Counts of parameters are those of the networks for 1000 classes and 3 bands. One logit in their
place takes (features + 1) × 999 fewer; the stem is counted by itself.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lenspipe.errors import InputError
from training import architectures
from training.architectures import vit_conv
from training.architectures.efficientnet_b0 import EfficientNet, MBConv
from training.architectures.efficientnet_b0 import Parameters as EfficientNetParameters
from training.architectures.layers import DropPath, he_normal
from training.architectures.resnet18 import BasicBlock
from training.architectures.vit_conv import Attention

RESNET18 = 11_689_512  # torchvision, resnet18, 1000 classes
EFFICIENTNET_B0 = 5_288_548  # torchvision, efficientnet_b0, 1000 classes; the paper says 5.3M


def count(name: str, bands: int = 3, size: int = 64, **parameters: Any) -> int:
    network = architectures.build(name, parameters, {"image": (bands, size, size)})
    return sum(p.numel() for p in network.parameters())


def one_logit(published: int, features: int) -> int:
    return published - 999 * (features + 1)


def test_resnet18_has_as_many_parameters_as_published() -> None:
    published = one_logit(RESNET18, 512)
    assert count("resnet18", stem="published") == published
    # 64 maps of 3 × 7² weights become 64 of 3 × 3²; a blur has none that learn.
    assert count("resnet18") == published - 64 * 3 * (49 - 9)
    assert count("resnet18", stem="published", anti_aliased=True) == published
    assert count("resnet18", bands=5) == count("resnet18") + 64 * 2 * 9


def test_efficientnet_b0_has_as_many_parameters_as_published() -> None:
    published = one_logit(EFFICIENTNET_B0, 1280)
    assert count("efficientnet_b0") == published
    assert count("efficientnet_b0", stem_stride=1) == published  # a stride has no weights
    assert count("efficientnet_b0", bands=1) == published - 32 * 2 * 9


def test_two_trunks_and_their_joint_layer_are_counted() -> None:
    network = architectures.build(
        "efficientnet_b0", {"joint": 64}, {"vis": (1, 64, 64), "nisp": (3, 64, 64)}
    )
    trunk = one_logit(EFFICIENTNET_B0, 1280) - 1281
    joint = 2 * 1280 * 64 + 64 + 64 + 1
    assert sum(p.numel() for p in network.parameters()) == 2 * trunk - 32 * 2 * 9 + joint


@pytest.mark.parametrize(
    ("width", "published", "wanted"), [(1.0, 24, 24), (1.1, 32, 32), (1.4, 40, 56), (0.1, 320, 32)]
)
def test_widths_are_multiples_of_eight(width: float, published: int, wanted: int) -> None:
    """B2 (width 1.1) keeps a stem of 32, B4 (1.4) makes 56 of 40, as in the authors' code."""
    assert EfficientNetParameters(width=width).maps(published) == wanted


def test_depths_are_rounded_up() -> None:
    network = architectures.build(
        "efficientnet_b0", {"depth": 1.2, "width": 0.1}, {"image": (3, 32, 32)}
    )
    assert isinstance(network, EfficientNet)
    assert sum(isinstance(m, MBConv) for m in network.modules()) == 2 + 3 + 3 + 4 + 4 + 5 + 2


@pytest.mark.parametrize(
    ("name", "parameters", "smallest"),
    [
        ("resnet18", {}, 8),
        ("resnet18", {"stem": "published"}, 32),
        ("efficientnet_b0", {"width": 0.1}, 32),
        ("efficientnet_b0", {"width": 0.1, "stem_stride": 1}, 16),
        ("vit_conv", {}, 9),
        ("vit_conv", {"stem": [8, 8]}, 5),
    ],
)
def test_the_smallest_stamp_and_an_odd_one_run_and_a_smaller_one_is_refused(
    name: str, parameters: dict[str, Any], smallest: int
) -> None:
    for size in (smallest, 2 * smallest + 1):
        network = architectures.build(name, parameters, {"image": (2, size, size)}).eval()
        with torch.no_grad():
            assert network(torch.ones(2, 2, size, size)).shape == (2,)
    with pytest.raises(InputError, match=rf"size_pixels: expected {smallest} or more"):
        architectures.build(name, parameters, {"image": (2, smallest - 1, smallest - 1)})


def shift_error(block: nn.Module, x: torch.Tensor) -> float:
    """How far the block's mean changes when the image moves by a pixel, which halving notices."""
    with torch.no_grad():
        before, after = block(x).mean(dim=(2, 3)), block(x.roll(1, 3)).mean(dim=(2, 3))
    return float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("name", ["resnet18", "resnet_narrow"])
def test_anti_aliasing_makes_a_shift_of_a_pixel_count_for_less(name: str) -> None:
    torch.manual_seed(1)
    x = torch.zeros(1, 2, 32, 32)
    x[:, :, 8:24, 8:24] = torch.randn(1, 2, 16, 16)  # nothing at the edges
    errors = []
    for anti_aliased in (True, False):
        torch.manual_seed(2)
        network = architectures.build(name, {"anti_aliased": anti_aliased}, {"image": (2, 32, 32)})
        features = network.eval().get_submodule("features")
        errors.append(shift_error(features, x))
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("anti_aliased", [False, True])
@pytest.mark.parametrize("size", [8, 9])
def test_a_basic_block_halves_alike_on_both_ways(anti_aliased: bool, size: int) -> None:
    block = BasicBlock(4, 6, 2, anti_aliased)
    assert block(torch.randn(2, 4, size, size)).shape == (2, 6, (size + 1) // 2, (size + 1) // 2)


def test_a_basic_block_is_the_published_one() -> None:
    torch.manual_seed(3)
    block = BasicBlock(4, 4, 1, anti_aliased=False).eval()
    x = torch.randn(2, 4, 7, 7)
    conv1, norm1, _, _, conv2, norm2 = block.branch
    with torch.no_grad():
        wanted = functional.relu(x + norm2(conv2(functional.relu(norm1(conv1(x))))))
        torch.testing.assert_close(block(x), wanted, rtol=0, atol=0)


def test_attention_is_torchs() -> None:
    torch.manual_seed(4)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    x = torch.randn(2, 5, 12)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        torch.testing.assert_close(ours(x), theirs(x, x, x)[0], rtol=1e-5, atol=1e-6)


def test_positions_tell_all_tokens_apart_and_begin_alike_for_every_size() -> None:
    small, large = vit_conv.positions(5, 16), vit_conv.positions(9, 16)
    assert small.shape == (25, 16)
    apart = torch.cdist(small, small) + torch.eye(25)
    assert apart.min() > 0.1
    torch.testing.assert_close(small.reshape(5, 5, 16), large.reshape(9, 9, 16)[:5, :5])
    # Token (row 2, column 3): sine of the row first, of the column after half of the numbers.
    assert small[2 * 5 + 3, 0] == pytest.approx(torch.sin(torch.tensor(2.0)).item())
    assert small[2 * 5 + 3, 8] == pytest.approx(torch.sin(torch.tensor(3.0)).item())


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_weights_of_the_transformer_fit_another_size(pool: str) -> None:
    parameters = {"pool": pool, "dim": 16, "depth": 1}
    small, large = (
        architectures.build("vit_conv", parameters, {"image": (2, size, size)}) for size in (16, 40)
    )
    large.load_state_dict(small.state_dict())
    assert large.eval()(torch.randn(3, 2, 40, 40)).shape == (3,)


def test_heads_must_divide_a_token() -> None:
    with pytest.raises(InputError, match="multiple of heads"):
        architectures.parse("vit_conv", {"dim": 16, "heads": 3})


@pytest.mark.parametrize("name", ["resnet18", "resnet_narrow"])
def test_stages_of_residual_networks_must_agree(name: str) -> None:
    with pytest.raises(InputError, match="as many blocks as widths"):
        architectures.parse(name, {"widths": [8, 16]})


def test_a_dropped_path_keeps_its_expectation() -> None:
    torch.manual_seed(5)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    out = drop.train()(x)
    assert out.unique().tolist() == pytest.approx([0.0, 4.0 / 3.0])
    assert (out.flatten(1).amax(1) == out.flatten(1).amin(1)).all()  # whole rows
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)  # 3 standard errors
    assert torch.equal(drop.eval()(x), x)


def test_initial_weights_have_the_variance_of_hes_equation() -> None:
    torch.manual_seed(6)
    plain, depthwise = nn.Conv2d(16, 64, 3), nn.Conv2d(256, 256, 5, groups=256)
    he_normal(nn.Sequential(plain, depthwise))
    assert plain.weight.var().item() == pytest.approx(2.0 / (9 * 64), rel=0.05)
    assert depthwise.weight.var().item() == pytest.approx(2.0 / 25, rel=0.06)
    assert plain.bias is not None
    assert not plain.bias.any()
