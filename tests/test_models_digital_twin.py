"""The adapter for digital twins of neurons, on a twin made by hand whose suppressors are planted."""

import math
import re
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import fake_twin
from helpers.fake_twin import (
    BAR,
    EDGE,
    MIDDLE,
    NEURONS,
    FakeMovieTwin,
    FakeTwin,
    bars,
    oriented_filters,
    twin,
)
from PIL import Image
from torch import nn

from absence_utils import (
    InputError,
    Unit,
    attribute,
    insert_patches,
    mine_patches,
    open_model,
    render_pair,
    validate_inputs,
    validate_model,
)
from absence_utils.images.base import TensorImages, input_channels, normalisation_of
from absence_utils.insertion.decisions import CANNOT_TELL, NONE
from absence_utils.models import random_copy, undo_elu
from absence_utils.models.load import model_fingerprint
from absence_utils.paths import ROOT
from absence_utils.your_model import CardOptions
from absence_utils.your_model.study import auto_config, study_layer

MOST = 4.0  # what a map can reach: sum of |filter|, which is 2, times the largest input, 2


def drives(image):
    """|vertical|, |horizontal| at the place where the neurons look, of one image [1, 1, edge, edge] in 0..1."""
    pixels = (image - 0.5) / 0.25
    return F.conv2d(pixels, oriented_filters(), padding=BAR // 2)[0, :, MIDDLE, MIDDLE].abs().tolist()


# -- the scale


def test_undoing_elu_gives_back_what_went_in_with_a_gradient_of_one():
    x = torch.linspace(-20, 5, 101, dtype=torch.double, requires_grad=True)
    y = undo_elu(F.elu(x) + 1)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, x, atol=1e-6) and torch.allclose(slope, torch.ones_like(x), atol=1e-6)
    by_hand = [value - 1 if value > 1 else math.log(value) for value in (0.01, 0.5, 1.0, 3.0)]
    assert undo_elu(torch.tensor([0.01, 0.5, 1.0, 3.0])).tolist() == pytest.approx(by_hand)


def test_a_response_that_was_rounded_to_zero_stays_at_the_end_of_the_scale():
    x = torch.tensor([-40.0], requires_grad=True)
    y = undo_elu(F.elu(x) + 1)
    assert y.item() == pytest.approx(-15.942, abs=1e-3) and torch.autograd.grad(y, x)[0] == 0


@pytest.mark.parametrize("vertical, horizontal", [(0, 0), (1, 0), (0, 1), (1, 2), (-2, 1)])
@pytest.mark.parametrize("data_key", NEURONS)
def test_responses_are_those_before_the_nonlinearity(data_key, vertical, horizontal):
    found = twin(data_key=data_key)(bars(vertical, horizontal))[0].tolist()
    rows = NEURONS[data_key]
    assert found == pytest.approx(
        [up * abs(vertical) - down * horizontal + b for up, down, b in rows], abs=1e-4
    )


def test_every_way_to_ask_for_the_output_stays_in_front_of_the_floor():
    model, images = twin(), torch.cat([bars(), bars(1, 0), bars(0, 3)])
    expected = [0.0, 3.0, -6.0]
    for layer in (None, "logits", "models.0.readout.monkey"):
        assert Unit(model, layer, 0).response(images).tolist() == pytest.approx(expected, abs=1e-4)
    floored = Unit(twin(undo="nothing"), None, 0).response(images)
    assert floored.tolist() == pytest.approx([1.0, 4.0, math.exp(-6)], abs=1e-5)


# -- the least exciting input


@pytest.fixture(scope="module")
def poles():
    options = {"steps": 40, "size": EDGE, "transforms": "none"}
    return {undo: render_pair(Unit(twin(undo=undo), channel=0), **options) for undo in ("elu+1", "nothing")}


def test_the_most_and_the_least_exciting_inputs_show_driver_and_suppressor(poles):
    vertical, horizontal = drives(poles["elu+1"].highest.image)
    assert vertical > 0.75 * MOST and horizontal < 0.1
    vertical, horizontal = drives(poles["elu+1"].lowest.image)
    assert horizontal > 0.75 * MOST and vertical < 0.1
    assert poles["elu+1"].lowest.response < -0.75 * 2 * MOST < 0 < poles["elu+1"].highest.response


def test_through_the_floor_the_same_steps_show_less_of_the_suppressor(poles):
    assert drives(poles["nothing"].highest.image)[0] > 0.75 * MOST  # of the driver as much
    assert drives(poles["nothing"].lowest.image)[1] < 0.7 * drives(poles["elu+1"].lowest.image)[1]


def test_the_gradient_through_the_floor_is_that_of_the_inverse_times_the_response():
    image = bars(0, 3).requires_grad_()
    signed, floored = (
        torch.autograd.grad(Unit(twin(undo=undo), channel=0).response(image).sum(), image)[0]
        for undo in ("elu+1", "nothing")
    )
    assert torch.allclose(floored, math.exp(-6) * signed, atol=1e-6) and signed.abs().max() > 0.2


def test_negative_evidence_lies_on_the_suppressor_and_grows_with_it():
    image = bars(1, 2)  # x = 3 - 4
    signed = attribute(Unit(twin(), channel=0), image)[0, 0]
    assert signed.sum().item() == pytest.approx(-1, abs=0.02)
    ends = [MIDDLE - 3, MIDDLE - 2, MIDDLE + 2, MIDDLE + 3]
    assert signed[MIDDLE, ends].tolist() == pytest.approx([-2 * 2 / BAR] * 4, abs=0.01)
    assert signed[ends, MIDDLE].tolist() == pytest.approx([3 / BAR] * 4, abs=0.01)
    floored = attribute(Unit(twin(undo="nothing"), channel=0), image)[0, 0]
    assert torch.allclose(floored, (1 - math.exp(-1)) * signed, atol=0.01)
    stronger = attribute(Unit(twin(undo="nothing"), channel=0), bars(0, 6))
    assert stronger.sum().item() == pytest.approx(-1, abs=0.02)  # the floor; it is -12 in front of it


# -- ensembles, masks, sizes, time


def test_an_ensemble_is_the_mean_of_the_predicted_responses():
    members, images = (
        [FakeTwin(), FakeTwin(gain=2.0)],
        torch.cat([bars(1, 0), bars(0, 1), bars(0, 2), bars()]),
    )
    mean = torch.stack([member(images, data_key="monkey") for member in members]).mean(0)
    assert torch.allclose(twin(members, undo="nothing")(images), mean)
    signed = twin(members)(images)
    assert torch.allclose(F.elu(signed) + 1, mean, atol=1e-6)
    assert torch.equal(signed.argsort(0), mean.argsort(0))  # the same images are extreme
    assert torch.equal(twin([FakeTwin()])(images), twin()(images))


def test_outside_the_mask_the_twin_sees_the_blank():
    mask = torch.zeros(EDGE, EDGE)
    mask[:, MIDDLE - 1 : MIDDLE + 2] = 1  # the flanks of the vertical bar; of a horizontal one a stub
    model, image = twin(mask=mask), bars(1, 0).requires_grad_()
    response = Unit(model, channel=0).response(image)
    assert response.item() == pytest.approx(3)
    (slope,) = torch.autograd.grad(response.sum(), image)
    assert slope[..., mask == 0].abs().max() == 0 and slope[..., mask == 1].abs().max() > 0.1
    assert Unit(model, channel=0).response(bars(0, 1)).item() == pytest.approx(-2 * 3 / BAR, abs=1e-5)
    assert torch.equal(model.view(torch.ones(1, 1, EDGE, EDGE))[0, 0], mask)
    half = twin(mask=torch.full((EDGE, EDGE), 0.5))
    assert torch.allclose(half(bars(2, 0)), twin()(bars(1, 0)))


def test_of_a_square_a_twin_of_wide_images_sees_the_centre():
    model, wide = twin(size=(12, EDGE)), bars(1, 2)[:, :, 2:14]
    square = F.pad(wide, (0, 0, 2, 2), value=7.0)  # 7: to be left out
    assert torch.equal(model(square), model(wide))
    assert torch.equal(model.view(square), F.pad(wide, (0, 0, 2, 2)))
    assert model.preprocessing["size"] == EDGE
    with pytest.raises(ValueError, match=r"12, 16\] or \[batch, 1, 16, 16\], and got \(1, 1, 8, 8\)"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(InputError, match="`size`: the network does not take images of 20"):
        render_pair(Unit(model), steps=1, size=20)


def test_frames_are_channels_and_the_response_is_the_mean_over_time():
    flash = torch.cat([bars(), *[bars(1, 0)] * 3])[None].transpose(1, 2)  # [1, 1, 4, edge, edge]
    model = twin(FakeMovieTwin(), frames=4)
    assert input_channels(model) == 4
    rates = torch.tensor([4.0, 1.0, 1.0])  # what is new drives it; then the blank
    assert model(flash.flatten(1, 2))[0, 0].item() == pytest.approx(undo_elu(rates.mean()).item(), abs=1e-5)
    assert model(flash.flip(2).flatten(1, 2))[0, 0].item() == pytest.approx(1, abs=1e-5)  # |bar| at its end


class ColourMeans(nn.Module):
    """[batch, colour, frame, height, width] to the mean of each colour."""

    def forward(self, clips, data_key=None):
        return clips.mean((2, 3, 4))


def test_frames_of_a_colour_stand_side_by_side():
    options = {"channels": 2, "frames": 3, "mean": [0.25, 0.5], "std": 0.25, "undo": "nothing"}
    model = twin(ColourMeans(), **options)
    clips = torch.arange(6.0).reshape(1, 2, 3, 1, 1).expand(1, 2, 3, EDGE, EDGE)
    assert model(clips.flatten(1, 2)).tolist() == [[1.0, 4.0]]
    assert normalisation_of(model).mean == (0.25,) * 3 + (0.5,) * 3


# -- with the rest of the package


def test_lowest_patches_show_the_suppressor_and_inserting_one_suppresses():
    images = torch.cat([bars(1, 0), bars(0, 1), bars(0.5, 0), bars(0, 0.5)])
    data = TensorImages(images, torch.zeros(4, dtype=torch.long), ["all"])
    model = twin()
    book = mine_patches(model, None, data, patch=8, stride=4, k=2, per_image=1)
    assert book.lowest.response[0].tolist() == pytest.approx([-2, -1], abs=1e-5)
    assert book.lowest.image[0].tolist() == [1, 3] and book.highest.image[0].tolist() == [0, 2]
    top, left, height, width = book.lowest.box[0, 0].tolist()
    patch = images[1, :, top : top + height, left : left + width]
    inserted = insert_patches(bars(1, 0), patch, corner=torch.tensor([[top, left]]))
    unit = Unit(model, channel=0)
    assert unit.response(inserted) < 0 < unit.response(bars(1, 0))


def test_it_is_opened_by_module_and_function_and_copied_with_random_weights():
    opened = open_model("helpers.fake_twin:make_twin")
    ready = opened.preprocessing
    assert (ready.size, ready.channels, ready.resize, ready.normalisation.mean) == (EDGE, 1, EDGE, (0.5,))
    images = torch.cat([bars(1, 0), bars(0, 1), bars(1, 2), bars(3, 0)])
    for layer in (None, "models.0.readout.monkey"):
        assert validate_model(opened.model, layer, images).ok
    copy = random_copy(opened.model, images=images)
    assert copy.signed_output and not torch.allclose(copy(images), opened.model(images))
    assert torch.equal(Unit(copy, "logits", 0).response(images), copy(images)[:, 0])


def write_grey(folder, edge=EDGE, count=60):
    """Images with a vertical and a horizontal bar in half of them each, where the neurons look, on noise."""
    generator = torch.Generator().manual_seed(0)
    there = torch.rand(count, 2, generator=generator) < 0.5
    heights = there * (0.5 + torch.rand(count, 2, generator=generator))
    folder.mkdir()
    for number, (vertical, horizontal) in enumerate(heights.tolist()):
        noise = 0.1 * torch.randn(edge, edge, generator=generator)
        image = bars(vertical, horizontal, edge=edge)[0, 0] + noise
        grey = (255 * (image * 0.25 + 0.5).clamp(0, 1)).round().byte()
        Image.fromarray(grey.numpy(), "L").save(folder / f"{number:02d}.png")


def test_a_layer_study_reads_a_twin_from_a_file_and_grey_images(tmp_path):
    """What notebook 10 does. The neurons look at the middle, where the corners of an image have no part."""
    write_grey(tmp_path / "grey")
    (tmp_path / "my_twin.py").write_text("from helpers.fake_twin import make_twin\n")
    opened = open_model(f"{tmp_path / 'my_twin.py'}:make_twin")
    images = opened.images(tmp_path / "grey")
    assert images[0][0].shape == (1, EDGE, EDGE) and validate_inputs(opened, images).ok
    copies = [random_copy(opened.model, 1)]
    found = {}
    for place in ("corners", "centre"):
        setting = auto_config(len(images), EDGE, hosts=40, place=place)
        found[place] = study_layer(opened.model, "logits", images, setting, copies, redraws=1).decisions
    assert (found["corners"]["decision"] == CANNOT_TELL).all() and (found["corners"]["studied"] == 0).all()
    effect = found["centre"]["effect"]  # neuron 1 has no suppressor
    assert (effect[[0, 2]] > effect[1] + 0.1).all() and (found["centre"]["studied"] == 3).all()
    assert found["centre"]["decision"][1] == NONE


def test_the_same_weights_with_another_readout_or_scale_are_another_network():
    made = [twin(), twin(data_key="mouse"), twin(undo="nothing"), twin(mask=torch.eye(EDGE))]
    assert len({model_fingerprint(model) for model in made}) == len(made)


def test_the_twin_is_in_eval_mode():
    assert not any(module.training for module in twin(FakeTwin().train()).modules())


class Fails(nn.Module):
    def forward(self, images, data_key=None):
        raise RuntimeError("no behaviour was given")


class GivesMaps(nn.Module):
    def forward(self, images, data_key=None):
        return images


@pytest.mark.parametrize(
    "parameter, says, change",
    [
        ("data_key", "no readout 'cat'. Its readouts are 'monkey', 'mouse'", {"data_key": "cat"}),
        ("models", "there are none", {"models": ()}),
        ("models", "str. Give an nn.Module", {"models": ["weights.pt"]}),
        ("models", "no behaviour was given", {"models": Fails()}),
        ("models", "number 0 returns (1, 1, 16, 16)", {"models": GivesMaps()}),
        ("models", "they have 3, 1 neurons",
         {"models": [FakeTwin(), FakeTwin(neurons={"monkey": NEURONS["mouse"]})]}),
        ("undo", "below the floor of ELU(x) + 1", {"models": FakeTwin(rate=False)}),
        ("undo", "Did you mean", {"undo": "elu"}),
        ("mask", "it has shape (1, 16, 16)", {"mask": torch.ones(1, EDGE, EDGE)}),
        ("mask", "0..255", {"mask": torch.eye(EDGE) * 255}),
        ("mask", "0..0", {"mask": torch.zeros(EDGE, EDGE)}),
        ("mean", "Divide by 255", {"mean": 113.0}),
        ("mean", "2 values for 1 channels", {"mean": (0.5, 0.5)}),
        ("std", "not of pixels", {"std": 0.0}),
        ("frames", "Use 1 or more", {"frames": 0}),
        ("channels", "Use 1 or more", {"channels": 0}),
        ("size", "Use 1 or more", {"size": (0, 16)}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_when_the_twin_is_made(parameter, says, change):
    change = dict(change)
    models = change.pop("models", FakeTwin())
    options = {"size": EDGE, "mean": 0.5, "std": 0.25, "undo": "elu+1", "data_key": "monkey"} | change
    with pytest.raises(InputError) as error:
        fake_twin.DigitalTwin(models, options.pop("data_key"), **options)
    assert error.value.parameter == parameter and says in str(error.value)


def test_values_below_the_floor_that_only_some_images_show_are_an_error_too():
    model = twin(FakeTwin(rate=False), data_key="mouse")  # 0.5 at the blank
    with pytest.raises(InputError, match="`undo`: .*-0.5, below the floor"):
        model(bars(0, 1))


# -- the page


def test_the_recipes_of_the_page_run(monkeypatch, tmp_path):
    text = (ROOT / "docs" / "neuroscience.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    images = F.pad(torch.cat([bars(1, 0), bars(0, 1), bars(1, 2)]), (0, 48, 0, 48))  # 64 px
    members = [FakeTwin(neurons={"session_7": NEURONS["monkey"]}) for _ in range(2)]
    loads = SimpleNamespace(load_models=lambda: members, load_images=lambda: images)
    monkeypatch.setitem(sys.modules, "my_lab", loads)
    monkeypatch.chdir(tmp_path)
    write_grey(tmp_path / "photos", edge=64, count=40)
    names = {
        "quick": {"options": CardOptions(steps=2, maps=1, facets=1), "hosts": 12, "k": 6, "random_copies": 1}
    }
    for block in blocks:
        exec(
            block.replace("steps=256", "steps=3").replace('place="centre"', 'place="centre", **quick'), names
        )
    assert names["blank"].item() == pytest.approx(-1, abs=1e-5)  # the baseline of neuron 2
    assert names["suppression"].shape == (3, 64, 64) and names["suppression"][1].sum() > 5
    assert names["curve"][15][1] < names["curve"][0][1] == pytest.approx(-1, abs=1e-5)
    made, preprocessing = names["make_twin"]()
    assert open_model(made, preprocessing=preprocessing).preprocessing.size == 64
    assert (
        "no patch moves the unit" in names["found"].sentence
    )  # in 64 px they look near a corner, not at the middle
