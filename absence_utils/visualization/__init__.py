"""Feature visualisation: images synthesised by maximising and by minimising a unit (notebook 04).

Stands on `units`, `images` and `stats`. Needs lucent.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "conditional": ["ConditionalPair", "conditional_pair", "conditional_table"],
        "ladder": ["Ladder", "suppression_ladder"],
        "objectives": ["absence", "presence", "suppression"],
        "budget": ["contrast_curve", "facet_table", "faint_contrast", "natural_contrast", "pole_table"],
        "rendering": [
            "RenderedPair",
            "Rendering",
            "Suppression",
            "minimise",
            "render_pair",
            "render_pairs",
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
