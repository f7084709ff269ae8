"""The command that prints the table of errors."""

import importlib.util

import pytest

from tests.tools import accuracy, bounds, oracle

SHAPE = (8, 5, 5, 6)


@pytest.mark.parametrize("layout", accuracy.LAYOUTS)
@pytest.mark.parametrize("offset", accuracy.OFFSETS)
def test_errors_are_within_the_bounds(offset, layout):
    axis = accuracy.LAYOUTS[layout]
    x = accuracy.data(offset, layout)
    exact = oracle.batch_norm(x, feature_axis=axis, epsilon=accuracy.EPSILON)
    bounds.check_y(x.dtype, accuracy.bnnumba_y(x, axis), exact)


def test_every_library_gives_batch_normalization():
    """Around a mean of 0 all agree; the table then compares the same thing."""
    for (name, _), errors in accuracy.largest_errors(SHAPE).items():
        assert errors is None or len(errors) == len(accuracy.OFFSETS)
        assert errors is None or errors[0] < 1e-4, name


def test_the_table_names_what_is_not_installed(monkeypatch):
    found = importlib.util.find_spec
    absent = ("torch", "tensorflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module in absent else found(module))
    head, _, *rows = accuracy.markdown(accuracy.largest_errors(SHAPE)).splitlines()
    assert head.count("|") == 7
    assert len(rows) == sum(len(library[3]) for library in accuracy.LIBRARIES)
    for row in rows:
        missing = row.startswith(("| PyTorch", "| TensorFlow"))
        assert row.count("not installed") == (4 if missing else 0)
        assert row.count("|") == 7
