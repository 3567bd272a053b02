"""Bad input is refused with the parameter's name and the remedy."""

import pytest
import torch

from absence_utils.errors import InputError, require_at_least, require_choice, require_shape


def test_choice_names_the_nearest_and_all():
    require_choice("corner", "left", ["left", "right"])
    with pytest.raises(
        InputError, match="`corner`: 'lef' is not known. Did you mean 'left'. Use one of left, right"
    ):
        require_choice("corner", "lef", ["left", "right"])
    with pytest.raises(InputError, match=r"`corner`: \['left'\] is not known. Use one of left"):
        require_choice("corner", ["left"], {"left": 1})


def test_least_is_allowed_and_nan_is_not():
    require_at_least("k", 2, 2)
    for value in (1, float("nan")):
        with pytest.raises(InputError, match="`k`: .* Use 2 or more: an interval needs two."):
            require_at_least("k", value, 2, "an interval needs two")


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5, 5), (2, 3, 5, 5, 1)])
def test_shape_is_named(shape):
    require_shape("images", torch.zeros(2, 3, 5, 5), "batch", 3, "height", "width")
    with pytest.raises(InputError, match=r"`images`: shape .* Give \[batch, 3, height, width\]"):
        require_shape("images", torch.zeros(shape), "batch", 3, "height", "width")


def test_what_has_no_shape_is_refused():
    with pytest.raises(InputError, match="`images`: a list has no shape"):
        require_shape("images", [1], "batch")
