"""Functions over arrays that numba compiles, once per installation wherever that is possible.

Each decorator keeps the machine code beside the module or, where that folder cannot be written to, in
the user's cache folder. Where there is neither (a container without a home), every process compiles
anew; numba alone would refuse. Threads can run compiled functions at the same time. Who waits at a terminal
for the compiler is told so.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

from numba import njit
from numba.core import event
from numba.np import linalg

COMPILING = "asr: compiling for this computer, which happens once\n"

Function = TypeVar("Function", bound=Callable[..., object])


def _start_without_scipy() -> None:
    """Keep numba from importing scipy when it starts, which would take a third of that time.

    It looks for scipy's BLAS, with which ``np.correlate`` and ``np.convolve`` would be faster in compiled
    code; without it they are loops. Nothing here calls them. Products of matrices find scipy on their own.
    """

    def refuse() -> NoReturn:
        raise ImportError("not needed")

    if "numba.np.arraymath" in sys.modules or not hasattr(linalg, "ensure_blas"):
        return
    find_blas, linalg.ensure_blas = linalg.ensure_blas, refuse
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = find_blas


_start_without_scipy()


class _Announcer(event.Listener):
    """Says once, at a terminal, why a first run takes longer."""

    def __init__(self) -> None:
        self.is_quiet = False

    def on_start(self, event: Any) -> None:
        if not self.is_quiet and sys.stderr.isatty():
            sys.stderr.write(COMPILING)
        self.is_quiet = True

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())


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
        compiled = njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba has no place to keep it
        return cast(Function, njit(nogil=True, **options)(function))
    _take_unreadable_for_empty(compiled)
    return cast(Function, compiled)


def _take_unreadable_for_empty(compiled: Any) -> None:
    """Let numba compile anew where an earlier version left an index that this one cannot read.

    It reads the whole index before it sees that the source has changed, and fails where a class that the
    index names has moved since (numba 0.68.1).
    """
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    load = getattr(file, "_load_index", None)
    if file is None or load is None:
        return

    def load_readable() -> Any:
        try:
            return load()
        except (AttributeError, ImportError):
            return {}

    file._load_index = load_readable
