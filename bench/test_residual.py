"""The converted network trains as PyTorch's does, in the first steps, before training amplifies roundings."""

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from bench.residual import train  # noqa: E402


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_the_losses_are_the_same(channels_last: bool) -> None:
    exact, *others = train(steps=4, batch_size=32, channels_last=channels_last, width=4).values()
    for each in others:
        torch.testing.assert_close(each.losses, exact.losses, rtol=1e-4, atol=0)
