"""The compiled networks a second time: plain Python on concept readings from 0 to 1, without tensors or weights.

`RESPONSE[name][layer]` maps a list of readings to the responses of a layer's units, and `TRUE[name]` maps truth values
to what the rule says of each output, written with and, or and not. `all_presences` has every image there is to show.
"""

import itertools
import math

import torch


def vectors(count):
    """All presence vectors, the first concept fastest."""
    return [list(reversed(bits)) for bits in itertools.product([False, True], repeat=count)]


def all_presences(net):
    """The same of a network, [2**concept, concept] bool."""
    return torch.tensor(vectors(len(net.concepts)))


def up(value):
    return max(0.0, value)


def at_least_two(reading):
    return up(sum(reading) - 1)


RESPONSE = {
    "A": {None: lambda r: [r[0]], "hidden": lambda r: [r[0]]},
    "not B": {None: lambda r: [up(1 - r[1])], "hidden": lambda r: [1 - r[1]]},
    "A and not B": {
        None: lambda r: [r[0] - at_least_two(r)],
        "hidden": lambda r: [r[0], r[0] + r[1] - 1],
    },
    "A and not B, rectified": {None: lambda r: [up(r[0] - 2 * r[1])], "hidden": lambda r: [r[0] - 2 * r[1]]},
    "A xor B": {
        None: lambda r: [r[0] + r[1] - 2 * at_least_two(r)],
        "hidden": lambda r: [r[0] + r[1], r[0] + r[1] - 1],
    },
    "count below k": {
        None: lambda r: [min(1.0, up(2 - sum(r)))],
        "hidden": lambda r: [2 - sum(r), 1 - sum(r)],
    },
    "A left of B": {  # readings: A left, A right, B left, B right
        None: lambda r: [at_least_two([r[0], r[3]]) - at_least_two([r[1], r[2]])],
        "hidden": lambda r: [r[0] + r[3] - 1, r[1] + r[2] - 1],
    },
    "only the bias": {None: lambda r: [1 + r[0] / 2], "hidden": lambda r: [1 + r[0] / 2]},
    "superposed decoy": {None: lambda r: [1.5 * own - sum(r) / 2 for own in r]},
}

TRUE = {
    "A": lambda p: [p[0]],
    "not B": lambda p: [not p[1]],
    "A and not B": lambda p: [p[0] and not p[1]],
    "A and not B, rectified": lambda p: [p[0] and not p[1]],
    "A xor B": lambda p: [p[0] != p[1]],
    "count below k": lambda p: [sum(p) < 2],
    "A left of B": lambda p: [(p[0] and p[3]) and not (p[1] and p[2])],
    "only the bias": lambda p: [True],
    "superposed decoy": lambda p: list(p),
}


def evidence_by_hand(function, start, end, steps=800):
    """(presence, absence) evidence of a straight path between two lists of readings, by small central steps."""
    shares = [0.0] * len(start)
    tiny = 1e-6
    for step in range(steps):
        point = [s + (step + 0.5) / steps * (e - s) for s, e in zip(start, end, strict=True)]
        for index in range(len(start)):
            above, below = list(point), list(point)
            above[index] += tiny
            below[index] -= tiny
            slope = (function(above) - function(below)) / (2 * tiny)
            shares[index] += slope * (end[index] - start[index]) / steps
    return math.fsum(s for s in shares if s > 0), -math.fsum(s for s in shares if s < 0)
