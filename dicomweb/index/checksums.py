"""CRC-32 of two texts in a row from the CRC-32 of each, as zlib's `crc32_combine` has it (RFC 1952 §8).

Appending n zero bytes to a text multiplies its remainder by x^(8n) modulo the CRC's polynomial: squarings of a 32×32
matrix over GF(2).
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320  # reflected
_Matrix = tuple[int, ...]


def crc32_combine(first: int, second: int, size: int) -> int:
    """Return the CRC-32 of two texts in a row.

    Parameters
    ----------
    first, second : CRC-32 of each
    size : bytes of the second
    """
    bit = 3  # The operator of 2**3 zero bits: one byte.
    while size:
        if size & 1:
            first = _times(_zeros(bit), first)
        size >>= 1
        bit += 1
    return first ^ second


@cache
def _zeros(power: int) -> _Matrix:
    """Return the operator of 2**power zero bits."""
    if power == 0:
        return (_POLYNOMIAL, *(1 << n for n in range(31)))
    half = _zeros(power - 1)
    return tuple(_times(half, column) for column in half)


def _times(matrix: _Matrix, vector: int) -> int:
    total = 0
    for column in matrix:
        if vector & 1:
            total ^= column
        vector >>= 1
        if not vector:
            break
    return total
