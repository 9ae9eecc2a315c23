"""Bases and eigenvectors of small dense matrices. LAPACK is called directly: a wrapper would cost as much again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgeqrf, dorgqr, dsyevr, sgeqrf, sorgqr, ssyevr

from capacity.errors import CapacityError

Array = NDArray[Any]  # float32 or float64


def orthonormal(rows: Array, basis: Array | None = None) -> Array:
    """Orthonormal rows that span `rows`, without their part in the rows of `basis`."""
    if basis is None:
        factorise, form = (sgeqrf, sorgqr) if rows.dtype == np.float32 else (dgeqrf, dorgqr)
        reflectors, scales, _, _ = factorise(rows.T)
        return np.ascontiguousarray(form(reflectors, scales)[0].T)
    rows = orthonormal(rows - (rows @ basis.T) @ basis)
    overlap = rows @ basis.T  # of rounding, so tiny unless little but rounding was left
    rows -= overlap @ basis
    return rows if float(np.abs(overlap).max()) < 1e-3 else orthonormal(rows)


def leading(matrix: Array, count: int) -> tuple[Array, Array]:
    """The largest eigenvalues of a symmetric matrix, (count,), in falling order, and their eigenvectors as rows.

    Only the lower half of the matrix is read.
    """
    n = len(matrix)
    values, vectors, _, _, failed = (ssyevr if matrix.dtype == np.float32 else dsyevr)(
        matrix, lower=1, range="I", il=n - count + 1, iu=n
    )
    if failed:
        raise CapacityError("the eigenvectors of a projected matrix did not converge")
    return values[:count][::-1], np.ascontiguousarray(vectors[:, :count].T[::-1])
