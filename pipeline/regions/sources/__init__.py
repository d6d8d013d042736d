"""Where regions can come from, one file each."""
