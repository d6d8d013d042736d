"""How fast this machine is; one module, with a function `run`, for each thing that `bench` measures."""
