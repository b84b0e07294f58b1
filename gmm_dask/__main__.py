"""`python -m gmm_dask` is `gmm-dask`."""

from gmm_dask.command.cli import main

if __name__ == "__main__":
    main()
