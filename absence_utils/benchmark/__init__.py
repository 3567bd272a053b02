"""The absence benchmark: planted ground truth, and which method finds which absence (notebook 09).

Stands on the four method packages; no experiment imports it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "compiled": ["COMPILED"],
        "effects": [
            "absences_by_layer",
            "average_causal_effect",
            "effects_everywhere",
            "exact_effects",
            "measured_effects",
            "planted_signs",
        ],
        "faithfulness": ["oracle_map"],
        "leaderboard": ["all_outcomes", "best_of_groups", "by_world", "compare", "order_stability"],
        "maps": ["MAPS", "of_each_unit"],
        "methods": ["GROUPS", "METHODS", "Method", "method_of_maps"],
        "networks": ["WEIGHTS", "load_benchmark_network"],
        "rule_networks": ["load_rule_network", "network_names", "rules_of", "train_rule_network"],
        "rules": ["RandomRule", "RuleSet", "draw_rules"],
        "running": ["BenchmarkConfig", "run_benchmark", "run_network"],
        "tasks": ["BenchmarkTask"],
    },
)
