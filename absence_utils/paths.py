"""Where things are in the checkout."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"  # small inputs that ship with the repository, listed in data/manifest.json
NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "results"  # generated, outside git


def cache_folder() -> Path:
    """Where decoded images are kept, outside the checkout: ABSENCE_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ABSENCE_CACHE") or Path(base) / "absence_utils")
