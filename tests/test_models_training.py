"""The training loop: reproducible, in place, and nothing left behind."""

import math

import pytest
import torch
from torch import nn

from absence_utils.errors import InputError
from absence_utils.models.training import accuracy, fit, predict


def problem():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 1, 2, 2, generator=generator)
    return images, (images.sum(dim=(1, 2, 3)) > 0).long()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def test_one_step_is_the_gradient_step_by_hand():
    images, labels = problem()
    weight = torch.zeros(2, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    nn.init.zeros_(model[1].weight)
    history = fit(model, images.double(), labels, epochs=1, lr=0.3, batch_size=60, schedule="constant",
                  optimiser=torch.optim.SGD)  # fmt: skip
    for image, label in zip(images.double().flatten(1), labels, strict=True):
        error = torch.full((2,), 0.5, dtype=torch.float64) - torch.eye(2, dtype=torch.float64)[label]
        weight -= 0.3 * error[:, None] * image / 60
    torch.testing.assert_close(model[1].weight.detach(), weight)
    assert history == [pytest.approx(math.log(2))]


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    images, labels = problem()
    results = []
    for seed, noise in ((3, 0), (3, 99), (4, 0)):
        model = network()
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        history = fit(
            model, images, labels, epochs=3, seed=seed, augment=lambda x, g: x + torch.rand(1, generator=g)
        )
        assert torch.equal(state, torch.get_rng_state())
        results.append((history, model[1].weight.detach().clone()))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])


def test_it_learns_counts_every_image_and_ends_in_eval_mode():
    images, labels = problem()
    model, seen = network(), []
    history = fit(model, images, labels, epochs=30, lr=0.05, batch_size=25,
                  augment=lambda batch, _: seen.append(len(batch)) or batch)  # fmt: skip
    assert seen[:3] == [25, 25, 10] and len(history) == 30
    assert history[-1] < 0.3 * history[0] and accuracy(model, images, labels) > 0.95
    assert not any(module.training for module in model.modules())


def test_history_is_the_mean_over_images_not_over_batches():
    images, labels = problem()
    model = network().eval()
    expected = nn.functional.cross_entropy(model(images), labels).item()
    model[3].p = 0.0
    history = fit(model, images, labels, epochs=1, lr=0.0, batch_size=50, schedule="constant")
    assert history == [pytest.approx(expected, rel=1e-5)]


def test_one_cycle_ends_at_rest():
    images, labels = problem()
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, *args, **options):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **options)

    fit(network(), images, labels, epochs=10, lr=0.5, batch_size=20, optimiser=Watched, momentum=0.9)
    assert max(rates) == pytest.approx(0.5, rel=0.02) and rates[-1] < 1e-3 and rates[0] < 0.05


def test_predict_equals_single_images_and_leaves_flags():
    images, _ = problem()
    model = network().train()
    model[3].eval()
    together = predict(model, images, batch_size=7)
    assert model.training and not model[3].training
    model.eval()
    torch.testing.assert_close(together, torch.cat([model(image[None]) for image in images]).detach())


@pytest.mark.parametrize(
    ("options", "parameter"),
    [({"epochs": 0}, "epochs"), ({"batch_size": 0}, "batch_size"), ({"schedule": "cosine"}, "schedule"),
     ({"targets": torch.zeros(3)}, "targets"), ({"lr": 1e30, "optimiser": torch.optim.SGD}, "lr")],
)  # fmt: skip
def test_bad_input_is_named(options, parameter):
    images, labels = problem()
    with pytest.raises(InputError, match=f"`{parameter}`"):
        fit(network(), images, options.pop("targets", labels), **options)
