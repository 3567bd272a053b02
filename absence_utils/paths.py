"""Where things are in the checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"  # small inputs that ship with the repository, listed in data/manifest.json
NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "results"  # generated, outside git
