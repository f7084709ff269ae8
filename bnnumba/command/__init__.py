"""What `python -m bnnumba` does: tell about the installation and the machine, and compile kernels ahead of time.

The core imports nothing of this. `memory`, `timing` and `whole_arrays` also serve the benchmarks of the repository.
"""
