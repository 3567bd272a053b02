"""Feature visualisation: images synthesised by maximising and by minimising a unit (notebook 04).

Stands on `units`, `images` and `stats`. Needs lucent.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "ladder": ["Ladder", "suppression_ladder"],
        "objectives": ["absence", "presence", "suppression"],
        "rendering": [
            "RenderedPair",
            "Rendering",
            "Suppression",
            "compare_with_real",
            "render_pair",
            "suppress",
            "suppress_top",
        ],
        "transfer": [
            "Match",
            "NaturalResponses",
            "Poles",
            "match_unit",
            "share_beyond",
            "transfer_summary",
            "transfer_table",
        ],
    },
)
