"""`python -m bench`: see `bench.report`."""

if __name__ == "__main__":  # each worker process imports this file too, and needs nothing of the report
    from bench.report import main

    main()
