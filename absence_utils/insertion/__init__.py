"""Patch insertion: patches pasted into images with controls; absence and veto scores, decisions (notebook 07).

Stands on `stats`, `units`, `images`, `models` and `patches`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "comparison": ["PLANTED", "compare_networks", "verdicts"],
        "design": ["Setting", "Treatment"],
        "examples": ["example_pictures", "typical_pairs"],
        "execution": ["run_insertions"],
        "known_units": ["KnownUnits"],
        "paste": ["CORNERS", "PLACES", "insert_patches", "scramble_phases"],
        "pooling": ["pooling_table"],
        "protocols": ["fair_protocol", "insertion_study", "published_protocol"],
        "scores": ["LEAST", "MAIN", "calibrate", "pick", "score_table"],
    },
)
