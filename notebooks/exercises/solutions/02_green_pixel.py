"""Solutions of exercise 02, a section for each task."""

# %% effects
# One pixel, one response: column 1 is the class "no green pixel".
effects = network(palette)[:, 1]

# %% change
# The response is a mean over 32 x 32 places, and green is at one of them; black adds nothing, as there is no bias.
change = effects[0] / (32 * 32)

# %% inputs
# A target input belongs to the unit's class, here class 1; green is only in the others.
target = test.labels == 1
non_target = test.labels == 0

# %% unsigned
# Nothing can be below zero in absolute values, so whatever is bright seems to speak for the unit.
negative = (unsigned < 0).double().mean()
reading = "for"

# %% signed
# Integrated gradients with their sign; input times gradient is the same here, as the network has no bias.
signed = attribute(Unit(network, channel=1), images)
