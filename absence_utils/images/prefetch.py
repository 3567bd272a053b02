"""Decode images in threads while the network runs: PIL and torch let go of Python's lock where the time is spent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def prefetch_images(dataset, numbers: Iterable[int], workers: int = 1) -> Iterator[tuple[int, Tensor]]:
    """Yield (number, image) of a dataset of (image, label), in the order of `numbers`, each decoded once.

    Args:
        workers: threads that decode ahead. One thread, the default, never asks the dataset for two images at a
            time, so that a dataset that is not made for threads does. 0 decodes in the caller's thread.

    Raises:
        whatever the dataset raises, when the turn of that image comes.
    """
    if workers == 0:
        for number in numbers:
            yield number, torch.as_tensor(dataset[number][0])
        return
    numbers, waiting = iter(numbers), deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        while True:
            while len(waiting) < workers + 2:  # enough to keep them busy, few enough to keep memory small
                number = next(numbers, None)
                if number is None:
                    break
                waiting.append((number, pool.submit(dataset.__getitem__, number)))
            if not waiting:
                return
            number, future = waiting.popleft()
            yield number, torch.as_tensor(future.result()[0])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
