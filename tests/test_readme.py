"""The README's examples run, and what they say of their results is true."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) == 11


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number, tmp_path, monkeypatch):
    if "import torch" in EXAMPLES[number]:
        pytest.importorskip("torch", exc_type=ModuleNotFoundError)  # which no extra brings along
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where an example may write
    path = tmp_path / "example.py"  # a file, because a cached @njit function needs one
    path.write_text(EXAMPLES[number], encoding="utf-8")
    names = {"__name__": "example", "__file__": str(path)}
    exec(compile(EXAMPLES[number], path, "exec"), names)
    assert names["x"].size
