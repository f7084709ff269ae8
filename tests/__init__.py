"""The tests of bnnumba. `python -m tests.accuracy` prints the README's table of errors."""
