"""Units with a known rule: by slow loops, and by what they claim to be."""

import pytest
import torch

from absence_utils import InputError, insert_patches
from absence_utils.nulls import SPARE, STRENGTH, KnownUnits


def noise(n=20, size=24, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def slow_energy(units, image):
    """Mean over windows of the rectified product with each filter, in float64, standardised: [2 x unit]."""
    image, filters = image.double(), units.filters.double()
    found = []
    for each in filters:
        windows = [
            (each * image[:, top : top + 6, left : left + 6]).sum().clamp(min=0)
            for top in range(0, image.shape[1] - 5, 3)
            for left in range(0, image.shape[2] - 5, 3)
        ]
        found.append(torch.stack(windows).mean())
    return (torch.stack(found) - units.centre) / units.spread


def test_rules_by_hand():
    images = noise()
    additive, veto = (KnownUnits(images, 4, rule) for rule in ("additive", "veto"))
    assert torch.equal(additive.filters, veto.filters)
    for image in images[:3]:
        a, b = slow_energy(additive, image).chunk(2)
        inhibition = b.clamp(min=0)
        torch.testing.assert_close(additive(image[None])[0].double(), a, rtol=0, atol=1e-4)
        expected = (a - STRENGTH * inhibition).clamp(min=0) - SPARE * inhibition
        torch.testing.assert_close(veto(image[None])[0].double(), expected, rtol=0, atol=1e-4)


def test_standardised_on_its_images_and_seeded():
    images = noise(50)
    one, same, other = (KnownUnits(images, 3, seed=seed)(images) for seed in (0, 0, 1))
    torch.testing.assert_close(one.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.std(0), torch.ones(3), atol=1e-3, rtol=0)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_additive_is_additive_but_for_the_seam():
    """What a patch adds hardly depends on the image around it; the veto's does. Edges of 6 px filters remain."""
    images, patch = noise(200), noise(2, 12, seed=5)[:, :, :12, :12]
    scatter = {}
    for rule in ("additive", "veto"):
        units = KnownUnits(images, 8, rule)
        before = units(insert_patches(images, patch[0], "top left"))
        after = units(insert_patches(images, patch[1], "top left"))
        scatter[rule] = (after - before).std(dim=0).mean() / units(images).std(dim=0).mean()
    assert scatter["additive"] < 0.4 * scatter["veto"]


def test_bad_input():
    with pytest.raises(InputError, match="rule.*additive, veto"):
        KnownUnits(noise(), 2, "linear")
    with pytest.raises(InputError, match="images.*alike"):
        KnownUnits(torch.zeros(4, 3, 12, 12), 2)
