"""Student's t distribution: only what an interval and a test need, so that scoring asks for no SciPy."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
MOST = 1e6
"""Degrees of freedom beyond which it is the normal distribution to six digits."""


def two_sided(t: float, freedom: float) -> float:
    """P(|T| > |t|) of Student's t with so many degrees of freedom, any number above 0.

    With t = sqrt(n) tan(a) the density is proportional to cos(a)^(n - 1) for a in [0, pi/2]: smooth, and
    integrated by Gauss and Legendre from a to where nothing is left of it.
    """
    if freedom > MOST:
        return math.erfc(abs(t) / math.sqrt(2))
    angle = math.atan(abs(t) / math.sqrt(freedom))
    reach = min(math.pi / 2, angle + 40 / math.sqrt(freedom + 1))
    half = (reach - angle) / 2
    if half <= 0:
        return 0.0
    nodes = angle + half * (_NODES + 1)
    # log-space: cos^(n - 1) underflows for many degrees of freedom
    integral = half * float(np.sum(_WEIGHTS * np.exp((freedom - 1) * np.log(np.cos(nodes)))))
    whole = math.lgamma(freedom / 2) + math.lgamma(0.5) - math.lgamma((freedom + 1) / 2) - math.log(2)
    return min(1.0, integral / math.exp(whole))


def quantile(level: float, freedom: float) -> float:
    """The t that |T| stays below with probability `level`: 1.96 for 0.95 and many degrees of freedom."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > 1 - level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2
