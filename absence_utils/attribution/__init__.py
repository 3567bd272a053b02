"""Signed attribution maps on target and non-target inputs, and the absence matrix (notebook 05).

Stands on `units`, `images` and `models`. Needs captum, but for `baselines`, `evidence` and `gradients`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "baselines": ["BASELINES", "baseline_images"],
        "columns": ["matrix_columns", "top_columns"],
        "counterfactuals": ["CounterfactualEffect", "counterfactual_effects", "resolve_verdict"],
        "diagnosis": ["Diagnosis", "diagnose"],
        "evidence": ["absence_evidence", "presence_evidence", "region_sums"],
        "maps": ["draw_maps", "maps_table"],
        "matrix": ["absence_matrix", "absence_share", "planted_cells", "planted_verdict"],
        "gradients": ["input_x_gradient"],
        "completeness": ["CompletenessWarning", "completeness_gap"],
        "methods": ["METHODS", "attribute"],
        "removal": ["TREATMENTS", "removal_table", "remove_pixels", "remove_strokes"],
        "screening": [
            "rerank_by_occlusion",
            "top_absence_inputs",
            "screen",
            "top_target_inputs",
            "target_split",
        ],
    },
)
