"""Odd polynomials that bring the numbers of an interval as close to 1 as possible."""

import functools

import numpy as np

# The limits of the minimax polynomials for intervals that shrink to 1, by their degree. They are
# the iterations of Newton and Schulz.
LIMITS = {3: (1.5, -0.5), 5: (1.875, -1.25, 0.375)}
# Up to this error the limit takes the place of the minimax polynomial, whose extrema can then no
# longer be told from 1 in float64.
SMALL_ERROR = 1e-2
_EXCHANGES = 50
# At the upper end of a wide interval, a polynomial makes rounding errors ten times as large.
# Intervals whose ends differ by more than this ratio are therefore wider by this factor at their
# upper end than the range of the preceding polynomial, so that no number leaves them.
WIDE, MARGIN = 50.0, 1.001
# The lowest value of a polynomial on its interval is some multiple of the interval's lower end. It
# has to be well above rounding errors, so that no number changes its sign.
LOWEST_END = 1e-3


@functools.cache
def minimax_polynomials(count: int, lower: float, degree: int) -> tuple[tuple[float, ...], ...]:
    """The odd polynomials to apply one after the other to numbers in `[lower, 1]`.

    Each is the minimax polynomial for the interval that its predecessor maps to. In exact
    arithmetic that has the smallest largest error of all compositions of as many odd polynomials
    of this degree. For rounding errors, intervals that are `WIDE` are made wider by `MARGIN` at
    their upper end, and none begins below `LOWEST_END` times its upper end.

    Args:
        count: Positive integer. The number of polynomials.
        lower: Float above 0 and below 1.
        degree: 3 or 5.

    Returns:
        Tuple with the coefficients of each polynomial, in odd powers, lowest first.

    Reference:

    - [Amsel et al., *The Polar Express*, 2025](https://arxiv.org/abs/2505.16932)
    """
    polynomials = []
    lowest, highest = lower, 1.0
    for _ in range(count):
        if 1.0 - lowest < SMALL_ERROR:
            polynomials.append(LIMITS[degree])
            continue
        upper = highest * MARGIN if highest > WIDE * lowest else highest
        coefficients, error = odd_minimax(max(lowest, LOWEST_END * upper), upper, degree)
        polynomials.append(coefficients)
        powers = lowest ** np.arange(1, degree + 1, 2)
        lowest, highest = min(1.0 - error, float(powers @ coefficients)), 1.0 + error
    return tuple(polynomials)


def odd_minimax(lower: float, upper: float, degree: int) -> tuple[tuple[float, ...], float]:
    """The odd polynomial p with the smallest largest error `|p(s) - 1|` on an interval.

    It is found by Remez' exchange. The errors of the best polynomial are equal and alternate in
    sign at the ends of the interval and at the extrema of p.

    Args:
        lower: Float above 0. The lower end of the interval.
        upper: Float above `lower`. The upper end of the interval.
        degree: Odd integer, at least 3.

    Returns:
        The coefficients in odd powers, lowest first, and the largest error.
    """
    powers = np.arange(1, degree + 1, 2)
    signs = (-1.0) ** np.arange(len(powers) + 1)
    points = np.geomspace(lower, upper, len(powers) + 1)
    for _ in range(_EXCHANGES):
        system = np.column_stack([points[:, None] ** powers, signs])
        *coefficients, error = np.linalg.solve(system, np.ones(len(points)))
        # The derivative of an odd polynomial is a polynomial in s².
        extrema = np.sqrt(np.polynomial.polynomial.polyroots(powers * coefficients).real)
        points = np.array([lower, *np.sort(extrema), upper])
    return tuple(float(each) for each in coefficients), float(abs(error))
