"""Benchmarks of bnnumba beside other libraries, and an example on real data.

    pytest --benchmark-only               some cases, every pass, every library that is installed
    pytest --benchmark-only --all-cases   every case
    pytest --benchmark-only bench/bench_half.py --all-cases   half precision beside float32 and PyTorch's bfloat16
    pytest --benchmark-only bench/bench_standardizer.py       Standardizer beside scikit-learn's StandardScaler
    pytest --benchmark-only bench/bench_dask.py               bnnumba.dask beside Dask's own mean and var
    pytest --benchmark-only bench/bench_torch.py --all-cases  bnnumba.torch beside PyTorch's own BatchNorm2d
    python -m bench                       the report: every case, each library in a process of its own, in turn with the
                                          others and with the memory's own rates; results/report.json and its picture
    python -m bench --readme              the same, and the README's tables
    python -m bench --draw-only --readme  the picture and the tables again, from the results that are there
    python -m bench --quick               some cases, three rounds; --help tells how to choose cases, passes, libraries
    python -m bench.startup               how long importing and the first training step of a process take
    python -m bench.digits                train on handwritten digits, with and without batch normalization
    python -m bench.residual              train a residual network of PyTorch, before and after its conversion
    mpiexec -n 2 python -m mpi4py -m bench.synchronization    what it costs to share a batch out to processes

`cases` and `libraries` are tables: a case or a library more is one line more there. BENCH_THREADS sets the number of
threads of all libraries; the default is every core.

Close other programs first. OpenMP's threads spin while they wait for each other, so where another program takes a core,
bnnumba and PyTorch lose whole time slices of the system, milliseconds in every call; TensorFlow's threads sleep.
"""
