"""Benchmarks of bnnumba beside other libraries, and an example on real data.

    pytest --benchmark-only               some cases, every pass, every library that is installed
    pytest --benchmark-only --all-cases   every case
    pytest --benchmark-only bench/bench_half.py --all-cases   half precision beside float32 and PyTorch's bfloat16
    pytest --benchmark-only bench/bench_standardizer.py       Standardizer beside scikit-learn's StandardScaler
    pytest --benchmark-only bench/bench_dask.py               bnnumba.dask beside Dask's own mean and var
    pytest --benchmark-only bench/bench_torch.py --all-cases  bnnumba.torch beside PyTorch's own BatchNorm2d
    python -m bench                       the report: every case, each library in a process of its own; the libraries
                                          and the memory's rates take turns; results/report.json and its picture
    python -m bench --readme              the same, and the tables of README.md and docs/speed.md
    python -m bench --draw-only --readme  the picture and the tables again, from the results that were kept
    python -m bench --shape 64x28x28x96 --feature-axis 3 --dtype float64      a shape of your own, and another dtype
    python -m bench --busy                calls beside other programs that keep the cores busy
    python -m bench --quick               some cases, three rounds; --help says how to choose cases, passes, libraries
    python -m bench.small                 calls on small arrays: the kernel alone, functions and layer, and PyTorch's
    python -m bench.startup               how long a process takes to import bnnumba and for its first training step
    python -m bench.digits                train on handwritten digits, with and without batch normalization
    python -m bench.residual              train a residual network of PyTorch, before and after its conversion
    mpiexec -n 2 python -m mpi4py -m bench.synchronization    what it costs to spread a batch over processes

`cases`, `passes` and `libraries` hold one table each, in which a case, a pass or a library is one row. BENCH_THREADS
sets the number of threads of every library; the default is one per core.

Close other programs first. PyTorch's threads spin while they wait for each other (OpenMP). Where another program takes
a core, they lose whole time slices: milliseconds in every call. The report says where the machine was busy.
"""
