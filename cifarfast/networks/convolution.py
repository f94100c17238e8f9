"""The 3x3 convolution of both networks, and how it begins."""

from torch import nn


def conv3x3(channels_in: int, channels_out: int, *, identity_init: bool) -> nn.Conv2d:
    """Without bias, of the size of its input; as torch begins it, at random.

    Args:
        identity_init: its first outputs begin as its inputs instead (nn.init.dirac_), only what it adds to them at
            random: S. Zagoruyko and N. Komodakis, "DiracNets" (arXiv:1706.00388); K. Jordan, arXiv:2404.00498,
            section 3.3.
    """
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    if identity_init:
        nn.init.dirac_(conv.weight.data[:channels_in])
    return conv
