"""Solutions of exercise 03, a section for each task."""

# %% left
# The negative part first, then a ratio of sums over all images; the last axis is the width.
evidence = {kind: absence_evidence(signed) for kind, signed in maps.items()}
left = {
    kind: float(values[..., :4].sum() / values.sum())
    for kind, values in evidence.items()
}

# %% score
# The signed map itself: lowest is what speaks against the unit most.
score = maps["8s"].sum(dim=1)

# %% control
# The same number of pixels, from the same strokes of the same images; only the map is not looked at.
generator = torch.Generator().manual_seed(0)
control = remove_pixels(
    eights, torch.rand(score.shape, generator=generator), count, among=strokes
)

# %% broken
# The mistake: a 3 without what speaks against "3" is a 3 all the more, so its class cannot tell.
seen = {
    name: predict(network, images).argmax(1) for name, images in treated_threes.items()
}
changed = {
    name: float((seen[name] != 3).double().mean())
    for name in ("most negative", "random")
}
conclusion = "encodes no absence"

# %% repaired
# Non-target inputs, and the outcome that the claim names: seen as 3.
treated_eights = remove_strokes(network, eights, unit=3, share=check.SHARE)
seen = {
    name: predict(network, images).argmax(1) for name, images in treated_eights.items()
}
flipped = {
    name: float((classes == 3).double().mean()) for name, classes in seen.items()
}
