"""What `convert` did to a model."""

from __future__ import annotations

from typing import NamedTuple


class Report(NamedTuple):
    """What became of a model's modules, by their names; the model itself is "".

    converted: what each does or is now. left: why each layer is what it was.
    """

    converted: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        """A line for each module."""
        lines = [f"{name}: {text}" for name, text in self.converted.items()]
        return "\n".join([*lines, *(f"{name}: left as it is: {why}" for name, why in self.left.items())])
