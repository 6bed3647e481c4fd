"""Functions over arrays that numba compiles, once per installation wherever that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """``function`` as machine code, made on the first call and kept on disk for later processes.

    It is kept beside the module or, where that may not be written to, in the user's cache folder.
    Where there is neither (a container without a home), every process compiles for itself; numba
    alone would refuse. Threads can run compiled functions at the same time.
    """
    return _kept(function)


def lean(function: Function) -> Function:
    """As ``compiled``, of a function that allocates nothing: numba counts no references, which takes
    longer than the work of small loops."""
    return _kept(function, _nrt=False)


def inlined(function: Function) -> Function:
    """As ``lean``, of a function that becomes part of those that call it."""
    return _kept(function, _nrt=False, forceinline=True)


def _kept(function: Function, **options: Any) -> Function:
    try:
        return cast(Function, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # numba has no place to keep it
        return cast(Function, njit(nogil=True, **options)(function))
