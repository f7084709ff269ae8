"""PyTorch's layers and ours, side by side. Import it where torch is installed."""

import torch
from torch import nn

from bnnumba import torch as ours

FIRST, LAST, LAST_3D = torch.contiguous_format, torch.channels_last, torch.channels_last_3d
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NEAR = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # of sums of 72 values
X = torch.ones(2, 3, 4, 4)


def both(kind, features, dtype=torch.float32, **options):
    """PyTorch's layer and ours, with the same weights."""
    theirs = getattr(nn, kind)(features, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.linspace(-1, 2, features))
    layer = getattr(ours, kind)(features, dtype=dtype, **options)
    layer.load_state_dict(theirs.state_dict())
    return theirs, layer


def data(shape, dtype=torch.float32, memory_format=FIRST, seed=0):
    """Some data, and a gradient; with means that are not 0, and multiples of 1/8, so that half precision has them."""
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.randint(-16, 24, shape, generator=generator) / 8 for _ in range(2))
    return [each.to(dtype).to(memory_format=memory_format) for each in (x, dy)]


def near(a, b):
    """Whether two tensors differ by roundings only, beside the largest of their values; integers may not."""
    largest = max(1.0, abs(b).max().item()) if b.numel() else 1.0
    torch.testing.assert_close(a, b, rtol=0, atol=NEAR.get(a.dtype, 0) * largest)


def step(layer, x, dy):
    """y, and the gradients of x and of the weights."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy)]
