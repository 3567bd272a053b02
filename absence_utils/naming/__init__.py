"""Names for encoded absences: which concept silences a unit, proposed on one half of the donors, confirmed on the other.

Stands on `stats`, `units`, `images`, `models` and `insertion` (notebook 11).
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "concepts": [
            "Concepts",
            "class_concepts",
            "folder_concepts",
            "mask_concepts",
            "scene_concepts",
            "tree_concepts",
        ],
        "effects": ["DonorEffects", "donor_effects"],
    },
)
