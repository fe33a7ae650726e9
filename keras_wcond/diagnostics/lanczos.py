"""The extreme eigenvalues of a symmetric matrix, from its products with vectors."""

from collections.abc import Callable, Iterator

import numpy as np


def lanczos(
    product: Callable[[np.ndarray], np.ndarray], size: int, steps: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Lanczos' method with full reorthogonalization, from a random start.

    Args:
        product: Function from a vector to its product with the matrix.
        size: The dimension of the matrix.
        steps: The largest number of steps.
        seed: The seed of the start vector. Defaults to 0.

    Yields:
        After each step, the Ritz values in ascending order, and for each a bound of its
        distance to the nearest eigenvalue. The iteration ends early if the vectors span an
        invariant subspace. The Ritz values are then its eigenvalues.
    """
    vector = np.random.default_rng(seed).normal(size=size)
    basis = np.empty((min(steps, size) + 1, size))
    basis[0] = vector / np.linalg.norm(vector)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for step in range(min(steps, size)):
        image = np.asarray(product(basis[step]), "float64")
        diagonal.append(float(basis[step] @ image))
        so_far = basis[: step + 1]
        for _ in range(2):  # Once is not enough in floating point.
            image = image - so_far.T @ (so_far @ image)
        off_diagonal.append(float(np.linalg.norm(image)))
        tridiagonal = (
            np.diag(diagonal) + np.diag(off_diagonal[:-1], 1) + np.diag(off_diagonal[:-1], -1)
        )
        ritz, vectors = np.linalg.eigh(tridiagonal)
        errors = off_diagonal[-1] * np.abs(vectors[-1])
        yield ritz, errors
        if off_diagonal[-1] <= 1e-7 * np.abs(ritz).max():
            return
        basis[step + 1] = image / off_diagonal[-1]
