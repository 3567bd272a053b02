"""Work that is done once for all workers of pytest-xdist, in the folder of the fixture `shared`."""

import fcntl
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path, name: str):
    """One worker of pytest-xdist at a time; yields a file whose presence says that the work is done."""
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / f"{name}.json"
