"""Solutions of exercise 09, a section for each task."""

# %% predict
# "Not B" fires at black, so B can only take away: an all-negative map. In "A and not B" the A speaks for it first.
case_1 = "presence-driven"
case_2 = "baseline-driven"
case_3 = "held down"
case_4 = "outweighed"

# %% bias
# Only showing the concept tells a bias from an absence.
effect_not_b = (not_b.model(shown) - not_b.model(empty)).item()
effect_bias = (bias.model(shown) - bias.model(empty)).item()
encodes = "not B"
check.print_numbers(effect_not_b=effect_not_b, effect_bias=effect_bias)

# %% targets
# The mistake: on target inputs the concept that must be absent is absent, and no map can lie on it.
said = on_targets(METHODS[name], rules)
silent = said[absent].isnan().sum()
check.print_scores(integrated_gradients=said)

# %% unsigned
# The mistake: without its sign, what suppresses most looks like what drives most, and ranks last.
unsigned = on_non_targets(lambda *given: METHODS[name](*given).abs(), rules)
edges = on_non_targets(METHODS["edge detector"], rules)
winner = "edge detector" if check.auroc(edges) > check.auroc(unsigned) else name
check.print_scores(absolute_integrated_gradients=unsigned, edge_detector=edges)

# %% signed
# Non-target inputs show what suppresses, and the sign says that it does.
signed = on_non_targets(METHODS[name], rules)
finds = (signed[absent] > 0).sum()
check.print_scores(integrated_gradients=signed)

# %% twins
# Every call on the twin is false, so the share called at the threshold is the rate of false alarms.
alarms = {
    name: (on_twin[name] >= limits[name]).double().mean().item() for name in limits
}
wolf = max(alarms, key=alarms.get)
check.print_numbers(alarms=alarms)
