"""What does a neural network encode by absence? Tools beside the paper "What is Missing?" (Hesse et al., ICML 2026).

The names below are the public face of the package. Each is loaded when it is first used, so that reading a unit does
not wait for lucent or captum.
"""

import lazy_loader as lazy

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "models": ["load_model", "open_model"],
        "your_model": ["card", "validate_inputs", "validate_model"],
        "images": ["load_images"],
        "units": ["Unit", "responses", "feature_map", "dataset_responses"],
        "attribution": ["attribute", "absence_evidence", "presence_evidence"],
        "plots.attribution": ["show_maps"],
        "plots.insertion": ["show_insertion"],
        "visualization": ["render_pair", "suppress"],
        "patches": ["mine_patches", "PatchBook"],
        "insertion": ["insert_patches", "insertion_study"],
        "naming": ["confirm", "name_absence"],
        "runner": ["save_figure", "start_run"],
        "errors": ["InputError"],
    },
)
