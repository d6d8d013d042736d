"""`cli.py review`: judge pseudo-masks in a browser on this machine, or read-only from one file."""
