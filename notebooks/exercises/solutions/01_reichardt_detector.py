"""Solutions of exercise 01, a section for each task."""

# %% signs
# A bar that stands still comes from neither side, so u and v both fire and their difference is 0.
signs = {"left to right": 1, "right to left": -1, "standing": 0}

# %% lowest
# One column to the left from frame 1 to frame 2: u is vetoed, v fires. Any such pair will do.
columns = (3, 2)

# %% evidence
# The negative part first, then the sum: summing a signed map would let red cancel blue.
unit = Unit(detector, channel=0)
on_target = absence_evidence(attribute(unit, images[[0]])).sum()
on_non_target = absence_evidence(attribute(unit, images[[1]])).sum()

# %% suppressor
# The blue bar is one column further left in frame 2 than in frame 1.
what = "right to left"

# %% broken
# After the rectifier a patch with the opposite motion and an empty one have the same response, 0.
tied = int((book.lowest.response[0] == book.lowest.response[0].min()).sum())
empty = int((book.crops(dataset, 0).lowest[:tied].sum(dim=(1, 2, 3)) == 0).sum())

# %% repaired
# Read behind the final rectification; "0" (the detector before the ReLU) reads the same.
layer = "logits"
