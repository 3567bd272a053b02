"""Debiasing: data with a shortcut, the objectives that unlearn it, and the study of notebook 08.

Stands on `stats`, `images` and `models`; no other package imports it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "artefacts": [
            "PATCHES",
            "Artefacts",
            "Bias",
            "border_bars",
            "elliptical_patches",
            "glyph_artefacts",
            "released_patches",
        ],
        "examples": ["example_maps"],
        "isic": ["sort_images"],
        "losses": ["compare_losses"],
        "measures": ["measure_shortcut"],
        "objectives": [
            "LOSSES",
            "OBJECTIVES",
            "PENALISED",
            "artefact_penalty",
            "attribution_inside",
            "presence",
            "presence_and_absence",
        ],
        "study": [
            "REFERENCES",
            "TWIN_SIDES",
            "DebiasStudy",
            "RunSpec",
            "chosen_objectives",
            "chosen_references",
            "plan_runs",
            "run_study",
            "run_twin",
        ],
        "tables": ["RULES"],
        "tasks": ["ShortcutData", "Task", "choose_task", "digits_task", "folder_task", "scenes_task"],
        "training": ["AUGMENTATIONS", "SCHEDULES", "TrainingConfig", "train"],
    },
)
