"""Strict notebook runs: parameters, provenance, and the comparison with the reference numbers.

Imports `errors`, `paths` and `files` alone.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "compare": ["compare_numbers"],
        "parameters": ["read_parameters", "resolve_parameters"],
        "record": ["about_run", "git_state", "output_folder", "save_figure", "save_table", "start_run"],
        "run": ["run_notebook"],
    },
)
