"""Work that processes of one thread each share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_processes(work: Callable[[Item], Made], items: Sequence[Item], workers: int) -> Iterator[Made]:
    """The result of `work` for each item as it comes, from `workers` processes, or from this one alone.

    They use one thread for linear algebra; what is pending at the end is dropped. Raises OSError where a
    process dies.
    """
    if workers == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with _one_thread_each():
        pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"))
        try:
            for done in as_completed([pool.submit(work, item) for item in items]):
                yield done.result()
        except BrokenProcessPool:
            raise OSError("a worker ended abruptly, perhaps out of memory; give fewer --workers") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start in this block use one thread for linear algebra; they read it at their start."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
