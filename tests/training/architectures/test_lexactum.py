"""The networks of LEXACTUM are the published ones: sizes, constants, initial weights, layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from lenspipe.errors import InputError
from training import architectures
from training.architectures.keras_layers import ELU, Bottleneck

# Keras' "total parameters" for 101 x 101 pixels: space (1 band), ground (4 bands).
PARAMETERS = {
    "cas_swinburne": (4_025_153, 4_060_001),
    "lastro_epfl": (5_676_449, 5_677_217),
    "cmu_deeplens": (3_526_721, 3_531_425),
    "wsi_net": (2_608_385, 2_613_089),
    "lensflow": (98_862, 100_062),
    "lensfinder": (10_315_777, 10_320_577),
}
SMALLEST = {
    "cas_swinburne": 27,
    "lastro_epfl": 69,
    "cmu_deeplens": 17,
    "wsi_net": 3,
    "lensflow": 24,
    "lensfinder": 4,
}


def count_parameters(network: nn.Module) -> int:
    """What Keras calls "total": all weights, and the moving mean and variance of each batch
    normalisation, which do not learn. torch's counters of batches are none of them."""
    moving = [b.numel() for name, b in network.named_buffers() if not name.endswith("_tracked")]
    return sum(p.numel() for p in network.parameters()) + sum(moving)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(("column", "bands"), [(0, 1), (1, 4)])
def test_as_many_parameters_as_published(name: str, column: int, bands: int) -> None:
    network = architectures.build(name, {}, {"image": (bands, 101, 101)})
    assert count_parameters(network) == PARAMETERS[name][column]


@pytest.mark.parametrize("name", PARAMETERS)
def test_keras_defaults(name: str) -> None:
    """Glorot's bound sqrt(6 / (fan in + fan out)), zero biases, constants of the norms."""
    torch.manual_seed(1)
    network = architectures.build(name, {}, {"image": (1, 101, 101)})
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (layer.eps, layer.momentum) == (1e-3, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6.0 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            largest = layer.weight.abs().max().item()
            assert 0.8 * bound < largest <= bound * (1 + 1e-6)  # float32
            assert layer.bias is not None
            assert not layer.bias.any()


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_stamp_runs_and_a_smaller_one_is_refused(name: str) -> None:
    size = SMALLEST[name]
    with torch.no_grad():
        network = architectures.build(name, {}, {"image": (2, size, size)}).eval()
        logits = network(torch.ones(2, 2, size, size))
    assert logits.shape == (2,)
    with pytest.raises(InputError, match=f"stamps.size_pixels: expected {size} or more"):
        architectures.build(name, {}, {"image": (2, size - 1, size - 1)})


def test_an_even_kernel_is_padded_by_one_before_and_two_after() -> None:
    network = architectures.build("lensflow", {}, {"image": (1, 101, 101)})
    pads = [layer.padding for layer in network.modules() if isinstance(layer, nn.ZeroPad2d)]
    assert pads == [(2, 2, 2, 2), (2, 2, 2, 2), (1, 2, 1, 2)]


def test_elu_is_torchs() -> None:
    x = torch.cat([torch.linspace(-90.0, 90.0, 4001), torch.linspace(-1e-6, 1e-6, 1001)])
    # exp - 1 has the roundings of 1, in torch's function as well.
    torch.testing.assert_close(ELU().eval()(x), functional.elu(x), rtol=0, atol=1.2e-7)
    assert torch.equal(ELU().train()(x), functional.elu(x))


@pytest.mark.parametrize("halve", [False, True])
def test_a_bottleneck_has_an_elu_after_every_convolution(halve: bool) -> None:
    torch.manual_seed(2)
    block = Bottleneck(8, 8, halve).eval()
    x = torch.randn(2, 8, 11, 11)
    with torch.no_grad():
        found = block(x)
        first = functional.elu(block.norm1(x))
        out = functional.elu(block.norm2(functional.elu(block.conv1(first))))
        out = functional.elu(block.norm3(functional.elu(block.conv2(out))))
        short = functional.elu(block.project(first)) if block.project is not None else x
        wanted = short + functional.elu(block.conv3(out))
    assert found.shape[-1] == (6 if halve else 11)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
