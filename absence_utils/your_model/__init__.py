"""Any network: open it, check it, study its units; the unit card and the atlas (notebook 10).

Stands on the four method packages and `plots`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "card": ["Effort", "card_numbers", "collect_cards"],
        "html": ["summary", "write_atlas", "write_card"],
        "opening": ["open_model"],
        "preprocessing": ["Preprocessing"],
        "study": [
            "asked_units",
            "fitting_setting",
            "found_in_nothing",
            "power_warning",
            "strongest",
            "study_layer",
        ],
        "validation": ["validate_model"],
    },
)
