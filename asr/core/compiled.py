"""Functions over arrays that numba compiles, once per installation wherever that is possible.

Each decorator keeps the machine code beside the module or, where that folder cannot be written to, in
the user's cache folder. Where there is neither (a container without a home), every process compiles
anew; numba alone would refuse. Threads can run compiled functions at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compile_function(function: Function) -> Function:
    """``function`` as machine code, made on the first call and kept on disk for later processes."""
    return _compile(function)


def compile_no_alloc(function: Function) -> Function:
    """Like ``compile_function``, for a function that allocates nothing.

    numba then counts no references, which would take longer than the work of small loops.
    """
    return _compile(function, _nrt=False)


def compile_vectorised(function: Function) -> Function:
    """Like ``compile_no_alloc``, for loops over float32 numbers: divisions raise nothing.

    A product and a sum may become one instruction. Sums keep their order, so results repeat exactly.
    """
    return _compile(function, _nrt=False, error_model="numpy", fastmath={"contract", "nsz"})


def compile_inline(function: Function) -> Function:
    """Like ``compile_no_alloc``, for a function that becomes part of its callers."""
    return _compile(function, _nrt=False, forceinline=True)


def _compile(function: Function, **options: Any) -> Function:
    try:
        return cast(Function, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # numba has no place to keep it
        return cast(Function, njit(nogil=True, **options)(function))
