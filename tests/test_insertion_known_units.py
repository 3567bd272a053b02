"""Units with a known rule: by slow loops, and by what they claim to be."""

import pytest
import torch

from absence_utils import InputError, insert_patches
from absence_utils.insertion.known_units import RARE, RESIDUAL_GAIN, VETO_GAIN, SyntheticUnits


def noise(n=20, size=24, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def slow_energies(units, image):
    """Rectified products of every window with each filter, in float64: mean (a) and largest local mean (b)."""
    image, filters = image.double(), units.filters.double()
    found = []
    for number, each in enumerate(filters):
        places = range(0, image.shape[1] - 5, 3)
        energy = [[(each * image[:, top : top + 6, left : left + 6]).sum().clamp(min=0).item() for left in places]
                  for top in places]  # fmt: skip
        count = len(places)
        if number < len(filters) // 2:
            value = sum(map(sum, energy)) / count**2
        else:
            value = max(
                sum(energy[i + y][j + x] for y in range(2) for x in range(2)) / 4
                for i in range(count - 1)
                for j in range(count - 1)
            )
        found.append((value - units.centre[number].item()) / units.spread[number].item())
    return found[: len(found) // 2], found[len(found) // 2 :]


def test_rules_by_hand():
    images = noise()
    additive, veto = (SyntheticUnits(images, 4, rule) for rule in ("additive", "veto"))
    assert torch.equal(additive.filters, veto.filters)
    vetoed = 0
    for image in images[:8]:
        answers = additive(image[None])[0].tolist(), veto(image[None])[0].tolist()
        for one, other, a, b in zip(*answers, *slow_energies(additive, image), strict=True):
            b = max(b, 0)
            vetoed += b > 0
            assert one == pytest.approx(a, abs=1e-4)
            assert other == pytest.approx(max(a - VETO_GAIN * b, 0) - RESIDUAL_GAIN * b, abs=1e-4)
    assert vetoed > 0


def test_what_vetoes_is_rare():
    images = noise(300)
    units = SyntheticUnits(images, 6, "veto")
    b = (units._energies(images)[1] - units.centre[6:]) / units.spread[6:]
    torch.testing.assert_close((b > 0).float().mean(dim=0), torch.full((6,), RARE), atol=0.01, rtol=0)


def test_standardised_on_its_images_and_seeded():
    images = noise(50)
    one, same, other = (SyntheticUnits(images, 3, seed=seed)(images) for seed in (0, 0, 1))
    torch.testing.assert_close(one.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.std(0), torch.ones(3), atol=1e-3, rtol=0)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_additive_is_additive_but_for_the_seam():
    """What a patch adds hardly depends on the image around it; the veto's does. Edges of 6 px filters remain."""
    images, patch = noise(200), noise(2, 12, seed=5)[:, :, :12, :12]
    scatter = {}
    for rule in ("additive", "veto"):
        units = SyntheticUnits(images, 8, rule)
        before = units(insert_patches(images, patch[0], "top left"))
        after = units(insert_patches(images, patch[1], "top left"))
        scatter[rule] = (after - before).std(dim=0).mean() / units(images).std(dim=0).mean()
    assert scatter["additive"] < 0.5 * scatter["veto"]


def test_bad_input():
    with pytest.raises(InputError, match="rule.*additive, saturating, veto"):
        SyntheticUnits(noise(), 2, "linear")
    with pytest.raises(InputError, match="images.*alike"):
        SyntheticUnits(torch.zeros(4, 3, 12, 12), 2)
