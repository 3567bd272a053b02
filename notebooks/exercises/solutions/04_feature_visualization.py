"""Solutions of exercise 04, a section for each task."""

# %% lowest
# One sign makes it a minimum; the way back to the budget keeps contrast from doing the work.
lowest = start
for _ in range(check.STEPS):
    leaf = lowest.clone().requires_grad_()
    (slope,) = torch.autograd.grad(unit.response(leaf).sum(), leaf)
    lowest = check.at_budget(
        lowest - check.STEP * slope / slope.norm().clamp(min=1e-12)
    )

# %% dead
# The mistake: as soon as the unit is silent everywhere the gradient is 0, and the image stays where it is.
image = start
for _ in range(check.STEPS):
    leaf = image.clone().requires_grad_()
    response = feature_map(network, "block4", leaf).relu()[:, check.CHANNEL].mean()
    (slope,) = torch.autograd.grad(response, leaf)
    image = check.at_budget(image - check.STEP * slope / slope.norm().clamp(min=1e-12))
dead_response, dead_gradient = response.item(), slope.norm().item()
reading = "no low side"

# %% hidden
# The same loop on the signed response, which goes on below 0.
signed = Unit(network, "block4", check.CHANNEL)
hidden = start
for _ in range(check.STEPS):
    leaf = hidden.clone().requires_grad_()
    (slope,) = torch.autograd.grad(signed.response(leaf).sum(), leaf)
    hidden = check.at_budget(
        hidden - check.STEP * slope / slope.norm().clamp(min=1e-12)
    )

# %% poles
# The tool's maximum has three times the contrast; at one budget the unit goes further down than up.
highest = start
for _ in range(check.STEPS):
    leaf = highest.clone().requires_grad_()
    (slope,) = torch.autograd.grad(unit.response(leaf).sum(), leaf)
    highest = check.at_budget(
        highest + check.STEP * slope / slope.norm().clamp(min=1e-12)
    )
further = "down"

# %% name
# The same scenes with and without a cross: nothing else can have changed the response.
concept = "cross"
shown, without = counterfactual_pairs(concept, n=32, seed=0)
changes = [
    other.response(NORMALISATION.apply(scenes.pixels)) for scenes in (shown, without)
]
effect = float((changes[0] - changes[1]).mean())
