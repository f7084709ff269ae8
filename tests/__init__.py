"""The tests of bnnumba. `python -m tests.tools.accuracy` prints the table of errors in docs/numerics.md."""
