"""What a newcomer finds: the names of the package, its optional modules, and signatures that can be read."""

import inspect
import sys
import types
import typing

import pytest

import bnnumba
from tests.tools.subprocesses import run_python

ROOMS = {
    "dask": "dask",
    "jax": "jax",
    "keras": "keras",
    "mpi": "mpi4py",
    "sklearn": "sklearn",
    "torch": "torch",
    "xarray": "xarray",
}

AT_FIRST_USE = """
import sys
import bnnumba
assert not {{"bnnumba.{room}", "{library}"}} & set(sys.modules)
print(bnnumba.{room}.__name__)
"""

MISSING = """
import sys
sys.modules["{library}"] = None
import bnnumba
assert "{room}" not in dir(bnnumba)
for use in (lambda: bnnumba.{room}, lambda: hasattr(bnnumba, "{room}"), lambda: exec("from bnnumba import {room}")):
    try:
        use()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_dir_has_the_public_names_only():
    names = set(dir(bnnumba))
    assert names - set(ROOMS) == {*bnnumba.__all__, "__version__", "activations", "kernels"}
    assert all(getattr(bnnumba, name) is not None for name in names - set(ROOMS))


@pytest.mark.parametrize(("room", "library"), ROOMS.items())
def test_an_optional_module_is_imported_at_its_first_use(room, library):
    pytest.importorskip(library)
    assert room in dir(bnnumba)
    assert run_python("-c", AT_FIRST_USE.format(room=room, library=library)).strip() == f"bnnumba.{room}"


@pytest.mark.parametrize(("room", "library"), ROOMS.items())
def test_a_missing_library_is_named(room, library):
    printed = run_python("-c", MISSING.format(room=room, library=library)).splitlines()
    assert len(printed) == 3
    assert all(line.startswith(f"bnnumba.{room} needs ") and "install" in line for line in printed)


def test_dir_of_a_form_has_its_kernels_only():
    assert dir(bnnumba.kernels.serial) == dir(bnnumba.kernels.threaded) == sorted(bnnumba.kernels.passes.__all__)


def test_dir_works_beside_a_module_that_was_made_by_hand(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", types.ModuleType("mpi4py"))
    assert "mpi" in dir(bnnumba)


def test_help_works_where_a_library_is_missing():
    hide = f"import sys; sys.modules.update(dict.fromkeys({list(ROOMS.values())}))"
    printed = run_python("-c", f"{hide}; import bnnumba; help(bnnumba)")
    assert "population_moments(" in printed


def test_a_wrong_name_is_an_error():
    assert not hasattr(bnnumba, "nonsense")
    with pytest.raises(AttributeError, match="module 'bnnumba' has no attribute 'nonsense'"):
        bnnumba.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from bnnumba import nonsense")


@pytest.mark.parametrize("name", bnnumba.__all__)
def test_signatures_use_short_names(name):
    signature = str(inspect.signature(getattr(bnnumba, name)))
    assert len(signature) < 1000
    assert "numpy." not in signature
    assert "bnnumba." not in signature


@pytest.mark.parametrize("name", [name for name in bnnumba.__all__ if inspect.isfunction(getattr(bnnumba, name))])
def test_annotations_can_be_resolved(name):
    assert "return" in typing.get_type_hints(getattr(bnnumba, name))
