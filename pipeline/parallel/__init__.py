"""Runs a step's shards: here, in processes, or on a Dask cluster; finished shards are kept."""
