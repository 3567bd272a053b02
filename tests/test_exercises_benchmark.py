"""Checks of exercise 09: right answers pass, and every classic wrong one is told what is wrong with it."""

import itertools

import numpy as np
import pytest
import torch
from checks import benchmark as check
from checks.answers import WrongAnswer
from checks.benchmark import METHODS, on_non_targets, on_targets
from helpers.exercise_reruns import cells_that_read_answers, run_and_check_again
from sklearn.metrics import roc_auc_score
from solve import cell_tags

from absence_utils.benchmark.compiled import COMPILED
from absence_utils.images.scenes import CONCEPTS, RULES

IG, EDGES = "integrated gradients", "edge detector"
WORDS = ("presence-driven", "baseline-driven", "held down", "outweighed")


@pytest.fixture(scope="module")
def rules():
    return check.subject("rules")


@pytest.fixture(scope="module")
def twin():
    return check.subject("twin")


def absolute(unit, images):
    return METHODS[IG](unit, images).abs()


def refuses(sentence, function, *arguments):
    with pytest.raises(WrongAnswer, match=sentence):
        function(*arguments)


@pytest.mark.slow
def test_predictions():
    assert "all negative (-1 in all" in check.predictions(*WORDS)
    refuses("`case_3`", check.predictions, *WORDS[:2], ..., WORDS[3])
    refuses("`case_1` should be one of", check.predictions, "yes", *WORDS[1:])
    every = (*WORDS, "silent")
    for place, word in itertools.product(range(4), every):
        if word != WORDS[place]:
            given = [*WORDS]
            given[place] = word
            case = [*check.CASES][place]
            refuses(f"^{case}: not '{word}'. Here the response is", check.predictions, *given)


def test_accounts_add_up_and_agree_with_the_network():
    table = check.accounts()
    assert table.verdict.tolist() == [*WORDS]
    for row in table.itertuples():
        name, _ = check.CASES[row.case]
        model = COMPILED[name]().model
        assert model(check.image_of(row.case)[None]).item() == pytest.approx(row.response, abs=1e-5)
        assert row.baseline_response + row.presence - row.absence == pytest.approx(row.response, abs=1e-4)
        assert model(torch.zeros(1, 1, 6, 6)).item() == pytest.approx(row.baseline_response, abs=1e-5)


def test_accounts_are_shown_once_every_prediction_is_made():
    refuses("nothing to show yet", check.accounts, *WORDS[:2], ..., WORDS[3])
    assert check.accounts(*WORDS).equals(check.accounts())


def test_half_of_the_way_raises_the_veto_unit_and_half_lowers_it():
    """What the exercise says of the 0.5 and 0.5 of "A and not B"."""
    model, image = COMPILED["A and not B"]().model, check.image_of("A and not B, shows A and B")
    along = torch.linspace(0, 1, 11)
    answers = model(along[:, None, None, None] * image)[:, 0]
    torch.testing.assert_close(answers, torch.minimum(along, 1 - along), atol=1e-6, rtol=0)
    lit = [check.image_of(case)[0] for case in ("A, shows A", "not B, shows B")]
    for share, slopes in ((0.3, (1, 0)), (0.7, (0, -1))):
        at = (share * image[None]).requires_grad_(True)
        (slope,) = torch.autograd.grad(model(at).sum(), at)
        for square, wanted in zip(lit, slopes, strict=True):
            assert float((slope[0, 0] * square).sum()) == pytest.approx(wanted, abs=1e-6)
    row = check.accounts().iloc[3]
    assert row.presence == pytest.approx(0.5, abs=1e-3) and row.absence == pytest.approx(0.5, abs=1e-3)


def test_a_bias_is_told_from_an_absence_by_showing_the_concept():
    for shape in ((), (1,), (1, 1)):
        for make in (torch.full, np.full):
            given = (make(shape, value) for value in (-1.0, 0.0))
            assert "only showing the concept" in check.put_it_in(*given, "not B")
    refuses("array of shape", check.put_it_in, torch.full((1, 2), -1.0), 0, "not B")
    refuses("`effect_bias`", check.put_it_in, -1, [...], "not B")
    assert "only showing the concept" in check.put_it_in(-1, 0.0, "not B")
    for wrong, sentence in (
        ((..., 0, "not B"), "`effect_not_b`"),
        ((1, 0, "not B"), "wrong way round"),
        ((0, 0, "not B"), "image with B|effect of A"),
        ((-1, 1, "not B"), "image with B"),
        ((-1, 0.5, "not B"), "effect of A"),
        ((-1, -0.3, "not B"), "`effect_bias` is not right yet"),
        ((-1, 0, "only the bias"), "Showing B changes nothing"),
        ((-1, 0, "both"), "Only one of them"),
        ((-1, 0, "neither"), "One of them falls"),
    ):
        refuses(sentence, check.put_it_in, *wrong)


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 1, 2))
def test_the_mistakes_mislead_and_the_repair_does_not(seed):
    who, absent = check.subject("rules", seed), check.planted()
    said = {
        "target": on_targets(METHODS[IG], who),
        "unsigned": on_non_targets(absolute, who),
        "signed": on_non_targets(METHODS[IG], who),
        "edges": on_non_targets(METHODS[EDGES], who),
    }
    scores = {name: check.auroc(values) for name, values in said.items()}
    assert scores["target"] == 0.5 and said["target"][absent].isnan().all()
    assert scores["unsigned"] < 0.3 < 0.6 < scores["edges"] < 0.85 < scores["signed"]
    assert (said["signed"][absent] > 0).all()


@pytest.mark.slow
def test_planted_and_auroc_are_those_of_the_benchmark(rules):
    absent = check.planted()
    assert [(list(RULES)[unit], CONCEPTS[concept]) for unit, concept in absent.nonzero().tolist()] == [
        (name, concept) for name, rule in RULES.items() for concept in rule.absent
    ]
    found = on_non_targets(METHODS[IG], rules)
    known = ~found.isnan()
    assert 0 < (~known).sum() < 4 and known[absent].all(), "no non-target input shows what it is for"
    others = (~absent).sum()
    said = (
        roc_auc_score(absent[known], found[known]) * known[~absent].sum() + 0.5 * (~known).sum()
    )  # silence counts as half
    assert check.auroc(found) == pytest.approx((said / others).item())
    assert check.auroc(absent.double()) == 1 and check.auroc(-absent.double()) == 0
    assert check.auroc(torch.full(absent.shape, torch.nan)) == 0.5
    table = check.table(found)
    assert table.loc["not ring", "ring"] == found[1, CONCEPTS.index("ring")]


@pytest.mark.slow
def test_on_its_own_class(rules):
    right = on_targets(METHODS[IG], rules)
    for given in (right, right.numpy(), check.table(right)):
        assert "edge detector (0.50 on the same target inputs)" in check.on_its_own_class(
            given, torch.tensor(3), rules
        )
    for wrong, sentence in (
        ((..., 3), "`said`"),
        ((on_non_targets(METHODS[IG], rules), 3), "First make the mistake"),
        ((on_targets(METHODS[EDGES], rules), 3), "That is the edge detector"),
        ((right, 0), "says something"),
        ((right.T, 3), "array of shape"),
        ((METHODS, 3), "a number or an array"),
    ):
        refuses(sentence, check.on_its_own_class, *wrong, rules)


@pytest.mark.slow
def test_an_unsigned_map_under_the_name_of_the_signed_one_stays_unsigned(rules):
    signed, unsigned = (on_non_targets(function, rules) for function in (METHODS[IG], absolute))
    assert check.auroc(unsigned) < 0.5 < check.auroc(signed)
    assert "That is false" in check.without_sign(unsigned, EDGES, rules)


@pytest.mark.slow
def test_without_sign(rules):
    right, signed = (on_non_targets(function, rules) for function in (absolute, METHODS[IG]))
    assert "That is false" in check.without_sign(right, EDGES, rules)
    for wrong, sentence in (
        ((right, ...), "`winner`"),
        ((signed, EDGES), "First make the mistake"),
        ((signed.abs(), EDGES), "pixel by pixel"),
        ((on_targets(absolute, rules), EDGES), "target inputs"),
        ((-right, EDGES), "With a minus"),
        ((right, IG), "AUROC 0.0.*of the unsigned map"),
    ):
        refuses(sentence, check.without_sign, *wrong, rules)


@pytest.mark.slow
def test_signed_on_others(rules):
    right = on_non_targets(METHODS[IG], rules)
    assert "3 of 3 planted absences" in check.signed_on_others(right, 3, rules)
    for wrong, sentence in (
        ((right, ...), "`finds`"),
        ((..., 3), "`signed`"),
        ((right + 1, 3), "`signed` is not right yet"),
        ((on_targets(METHODS[IG], rules), 3), "target inputs still"),
        ((on_non_targets(absolute, rules), 3), "unsigned still"),
        ((-right, 3), "wrong way round"),
        ((right, int((right > 0).sum())), "all pairs"),
        ((right, 0), "Positive says absence"),
    ):
        refuses(sentence, check.signed_on_others, *wrong, rules)


def test_false_alarms(rules, twin):
    on_rules, on_twin = (
        {name: on_non_targets(function, who) for name, function in METHODS.items()} for who in (rules, twin)
    )
    limits, absent = check.thresholds(on_rules), check.planted()
    for name, said in on_rules.items():
        assert (said[absent] >= limits[name]).all() and limits[name] in said[absent].tolist()
    right = {name: (said >= limits[name]).double().mean().item() for name, said in on_twin.items()}
    assert right[IG] == 0 and right[EDGES] > 0.3, "the mistake shows"
    assert "edge detector" in check.false_alarms(right, EDGES, on_rules, on_twin)
    check.false_alarms({name: round(share, 2) for name, share in right.items()}, EDGES, on_rules, on_twin)
    name = "gradient sign"  # its wrong shares differ from each other
    said, own, limit = on_twin[name], on_rules[name], limits[name]
    for wrong, sentence in (
        (..., "replace the ... of `alarms`"),
        ((said > 0).double().mean(), "everything above 0"),
        ((own >= limit).double().mean(), "with absences. Use the twin"),
        ((own[~absent] >= limit).double().mean(), "on the network itself"),
        ((said[absent] >= limit).double().mean(), "count all pairs"),
        ((said >= limit).sum(), "Give their share"),
        ((said[~said.isnan()] >= limit).double().mean(), "says nothing are pairs too"),
        (0.3, r'`alarms\["gradient sign"\]` is not right yet'),
    ):
        refuses(sentence, check.false_alarms, right | {name: wrong}, EDGES, on_rules, on_twin)
    refuses(f"{IG} calls 0%", check.false_alarms, right, IG, on_rules, on_twin)
    refuses("dict with the keys", check.false_alarms, [0, 0, 1], EDGES, on_rules, on_twin)


def test_a_table_needs_an_answer():
    refuses("nothing to show yet", check.table, ...)


def test_what_answer_cells_print(rules, capsys):
    targets, others = (way(METHODS[IG], rules) for way in (on_targets, on_non_targets))
    check.print_scores(one=targets, two=others.numpy(), open=..., wrong=others.T)
    assert capsys.readouterr().out.splitlines() == [
        "one: AUROC 0.50 (by chance 0.50)",
        f"two: AUROC {check.auroc(others):.2f} (by chance 0.50)",
        "wrong: shape (7, 5), not [unit, concept] (5, 7)",
    ]


@pytest.mark.slow
def test_every_check_passes_once_more_after_the_last_task(tmp_path, monkeypatch):
    """No solution overwrites what the check of an earlier task reads."""
    monkeypatch.chdir(tmp_path)
    run_and_check_again("09")


def test_nothing_open_stops_run_all():
    reads = cells_that_read_answers("09")
    assert len(reads) >= 12 and all("raises-exception" in cell_tags(cell) for cell in reads)
