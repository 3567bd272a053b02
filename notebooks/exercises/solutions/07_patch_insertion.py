"""Solutions of exercise 07, a section for each task."""

# %% score
# Paired with the random patch at the same place of the same image, and in units that can be compared.
absence = (data.random - data.lowest).mean(axis=(1, 2)) / data.sd

# %% own
# The mistake: the largest of 64 scores is large by choice, and the images and patches that chose it will confirm it.
scores = chosen_on.mean(dim=(0, 1))
best = int(scores.argmax())
inflated = scores[best]
check.tested(chosen_on, best)

# %% places
# The mistake: the two differ by what is pasted and by what is covered, and the disc is in the middle.
treated = centred.unit.response(insert_patches(centred.images, centred.ring, "centre"))
control = centred.unit.response(
    insert_patches(centred.images, centred.empty, "top left")
)
check.tested_pairs(treated, control, centred)

# %% minimum
# The mistake: one low position among many decides, and top images are those that had none.
top_drop = (
    maps.top["random"].min(dim=-1).values - maps.top["lowest"].min(dim=-1).values
).mean()
neutral_drop = (
    maps.neutral["random"].min(dim=-1).values
    - maps.neutral["lowest"].min(dim=-1).values
).mean()
check.print_numbers(top_drop=top_drop, neutral_drop=neutral_drop)

# %% repaired
# Fresh images and fresh patches, for both are random; the empty patch where the ring is; every position counts alike.
clean = drops[12:, 4:, best].mean()
covered = centred.unit.response(insert_patches(centred.images, centred.empty, "centre"))
same_place = (covered - treated).mean() / centred.sd
mean_top = (maps.top["random"].mean(dim=-1) - maps.top["lowest"].mean(dim=-1)).mean()
mean_neutral = (
    maps.neutral["random"].mean(dim=-1) - maps.neutral["lowest"].mean(dim=-1)
).mean()
mean_veto = mean_top - mean_neutral
check.print_numbers(clean=clean, same_place=same_place, mean_veto=mean_veto)

# %% verdict
# The same patches at the same places: what an additive unit loses on top images, it loses on neutral ones as well.
neutral = (data.neutral_random - data.neutral_lowest).mean(axis=(1, 2)) / data.sd
veto = absence - neutral
vetoed = np.flatnonzero(veto > 0.5)
