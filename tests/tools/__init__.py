"""What the tests share: the oracle, problems, bounds, ways to run a process."""
