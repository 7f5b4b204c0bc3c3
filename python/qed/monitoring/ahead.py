"""Work on several threads, ahead of what uses the results, and in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = ["ahead"]

_T = TypeVar("_T")
_R = TypeVar("_R")


def ahead(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int) -> Iterator[_R]:
    """Yield the result for each item, in the order of the items.

    Args:
        work: What to do with an item. Any number of threads call it at once.
        items: The items. They are read as they are needed.
        threads: How many threads work. Twice as many items are begun before the result of the first is used, so the
            memory is bounded.

    Yields:
        The results. An error of `work` is raised in the place of its result; no further item is begun then, nor when
        the caller stops, and what is under way is waited for.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="qed-ahead")
    try:
        pending: deque[Future[_R]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
