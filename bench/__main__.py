"""`python -m bench`: see `bench.report`."""

if __name__ == "__main__":  # each worker process imports this file too, but does not need the report
    from bench.report import main

    main()
