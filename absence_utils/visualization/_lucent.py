"""The parts of lucent that are used here, imported without the deprecation warnings of its kornia."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lucent.optvis import objectives, param, transform
    from lucent.optvis.render import hook_model

__all__ = ["hook_model", "objectives", "param", "transform"]
