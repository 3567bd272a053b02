"""Patch insertion: patches pasted into images with controls; absence and veto scores, decisions (notebook 07).

Stands on `stats`, `units`, `images`, `models` and `patches`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "comparison": [
            "PLANTED",
            "compare_networks",
            "compare_scores",
            "control_table",
            "decide_networks",
            "describe_verdicts",
            "verdicts",
        ],
        "context": ["context_effects", "evidence_masks"],
        "decisions": ["decide", "describe_decision"],
        "design": ["InsertionConfig", "Treatment"],
        "hosts": ["host_effects"],
        "examples": ["example_pictures", "typical_pairs"],
        "execution": ["run_insertions"],
        "known_units": ["SyntheticUnits"],
        "paste": ["CORNERS", "LOCATIONS", "insert_patches", "scramble_phases"],
        "pooling": ["pooling_table"],
        "protocols": ["controlled_protocol", "insertion_study"],
        "published": ["PublishedDraws", "draw_published", "published_protocol", "published_summary"],
        "scores": ["MIN_EFFECT", "MAIN_CONTROL", "calibrate", "select_score", "score_table"],
    },
)
