"""Read a layer of any network: before its nonlinearity, with known axes, and held against what the layer returned."""
