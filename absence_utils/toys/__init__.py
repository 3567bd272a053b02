"""The toy experiments of notebooks 01 to 03: data, network and steps of each in one file.

Stands on `patches` and `attribution`; no other package imports it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "digits": [
            "DigitsNet",
            "all_class_pairs",
            "class_maps",
            "median_removal",
            "progressive_removal",
            "removal_over_seeds",
            "train_digits",
        ],
        "green_pixel": [
            "COLOURS",
            "INITIALISATIONS",
            "LOSSES",
            "OURS",
            "PALETTES",
            "RELEASED",
            "SCHEDULES",
            "GreenPixelNet",
            "Recipe",
            "channel_weights",
            "colour_mask",
            "compare_recipes",
            "convergence_over_seeds",
            "convergence_table",
            "green_pixel_images",
            "logit_table",
            "only_coloured",
            "shares_on_green",
            "sweep_pixel_colour",
        ],
        "motion": [
            "MotionDetector",
            "bar_table",
            "detector_views",
            "last_extremes",
            "motion_sequences",
            "moving_bars",
            "pair_maps",
            "pair_table",
        ],
    },
)
