"""The parts of lucent that are used here, imported without the deprecation warnings of its kornia."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lucent.optvis import objectives, param, transform
    from lucent.optvis.param.color import color_correlation_normalized as colour_correlation
    from lucent.optvis.render import hook_model

__all__ = ["colour_correlation", "hook_model", "objectives", "param", "transform"]
