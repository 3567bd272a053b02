"""A progress bar, where somebody is looking."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress(iterable: Iterable, description: str = "", total: int | None = None) -> Iterable:
    """Iterate with a progress bar in a notebook or a terminal; silent in logs and with TQDM_DISABLE=1."""
    disable = os.environ.get("TQDM_DISABLE", "0").lower() not in ("", "0", "false")
    in_kernel = "ipykernel" in sys.modules and sys.modules["IPython"].get_ipython() is not None
    if disable or not (in_kernel or sys.stderr.isatty()):
        return iterable
    return tqdm(iterable, desc=description, total=total, leave=False)
