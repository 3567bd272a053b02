"""Feature visualisation: images synthesised by maximising and by minimising a unit (notebook 04).

Stands on `units` and `images`. Needs lucent.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "conditional": ["ConditionalPair", "conditional_pair", "conditional_table"],
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
    },
)
