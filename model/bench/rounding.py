"""How fast this machine is; one module, with a function `run`, for each thing that `bench` measures."""


def significant(value: float, digits: int = 4) -> float:
    """`value` to so many digits, whatever its size: a step may take a millisecond or an hour."""
    return float(f"{value:.{digits}g}")
