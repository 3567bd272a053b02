"""Names for encoded absences: which concept silences a unit; half of the donors propose, the other half confirm.

Stands on `stats`, `units`, `images`, `models`, `patches` and `insertion` (notebook 11).
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "confirmation": ["Confirmation", "confirm"],
        "concepts": [
            "Concepts",
            "class_concepts",
            "find_concepts",
            "folder_concepts",
            "mask_concepts",
            "rendered_concepts",
            "scene_concepts",
            "tree_concepts",
        ],
        "effects": ["DonorEffects", "donor_effects"],
        "names": ["NamingResult", "headlines", "name_absence", "share_table"],
        "truth": ["against_truth", "describe_names", "join_readings", "join_truth"],
    },
)
