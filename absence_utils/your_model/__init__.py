"""Any network: check it, study its units; the unit card and the atlas (notebook 10).

Stands on the four method packages and `plots`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "atlas": ["write_atlas"],
        "cards": ["CardOptions", "card_numbers", "collect_cards"],
        "effort": ["EFFORTS"],
        "html": ["write_card"],
        "offer": ["offer_names"],
        "one_card": ["card"],
        "inputs": ["validate_inputs"],
        "study": [
            "about_study",
            "card_units",
            "few_images",
            "parse_units",
            "auto_config",
            "summary",
            "strongest_units",
            "study_layer",
        ],
        "validation": ["validate_model"],
    },
)
