"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

INTERVAL = 0.5  # s between two looks at the parent


def end_with(parent: int, end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """End this process as soon as it is no longer a child of `parent`, which has died then: by SIGKILL, say.

    A process without a parent goes on for ever where it waits for work, as the kernel of a notebook and the workers of
    a `ProcessPoolExecutor` do. (Jupyter's kernels look after their parent themselves, but miss one that died while they
    started, unless process 1 takes them over.)

    Args:
        parent: id of the process that started this one, as that process or a shell knew it: a process that asks for
            its parent itself may ask too late.
        end: called in a thread; the default ends at once without any clean-up, since nobody is left to wait for it.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        end()

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
