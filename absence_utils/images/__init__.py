"""Image datasets: preprocessing, folders, a cache of decoded images, digits, concept scenes with a known answer.

Imports `errors`, `paths`, `files` and `progress` alone.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "base": [
            "IDENTITY",
            "IMAGENET",
            "Normalisation",
            "TensorImages",
            "set_input_spec",
            "input_channels",
            "normalisation_of",
        ],
        "cache": ["ImageStack", "stack_images"],
        "folders": ["FolderImages"],
        "load": ["load_images"],
        "preprocessing": ["Preprocessing"],
        "scenes": [
            "CONCEPTS",
            "NORMALISATION",
            "RULES",
            "counterfactual_pairs",
            "draw_presence",
            "planted_effects",
            "render_scenes",
            "scene_dataset",
        ],
        "subsets": ["Subset", "shuffle_images"],
        "worlds": ["World"],
    },
)
