"""What does a neural network encode by absence? Tools beside the paper "What is Missing?" (Hesse et al., ICML 2026).

The names below are the public face of the package. Each is loaded when it is first used, so that reading a unit does
not wait for lucent or captum.
"""

from importlib import import_module

_HOME = {
    "load_model": "models",
    "open_model": "bring",
    "validate_model": "validate",
    "load_images": "images",
    "Unit": "units",
    "responses": "units",
    "feature_map": "units",
    "dataset_responses": "units",
    "attribute": "attribution",
    "absence_evidence": "attribution",
    "presence_evidence": "attribution",
    "render_pair": "visualize",
    "suppress": "visualize",
    "mine_patches": "patches",
    "PatchBook": "patches",
    "insert_patches": "insertion",
    "insertion_study": "protocols",
    "save_figure": "record",
    "start_run": "record",
    "InputError": "errors",
}
__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
