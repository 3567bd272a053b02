"""Read a layer of any network: before its nonlinearity, with known axes, and held against what the layer returned."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={"reading": ["declare_axes", "feature_map", "layout_of"]},
)
