"""The tests of bnnumba. `python -m tests.tools.accuracy` prints the README's table of errors."""
