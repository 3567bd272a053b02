"""Methods and answers of one's own: right ones are scored, every wrong one is told what is wrong with it."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.untrained import without_files

from absence_utils.benchmark import __main__ as command
from absence_utils.benchmark import submission as sub
from absence_utils.benchmark.running import BenchmarkConfig
from absence_utils.benchmark.truth import output_truth, truth_table
from absence_utils.errors import InputError
from absence_utils.paths import ROOT

SMALL = BenchmarkConfig(2, 64, 2, 1, 0, 2)
NETWORKS = ("plain/0", "together/2")


@pytest.fixture(scope="module", autouse=True)
def no_files(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        without_files(patch, tmp_path_factory.mktemp("networks"))
        yield


def template(networks=NETWORKS):
    every = [name for own in networks for name in (own, own + " twin")]
    return pd.concat([truth_table(name) for name in every], ignore_index=True)


def perfect(sign=1):
    truth = template()
    return truth.assign(value=sign * (truth.truth == "absence").astype(float)).drop(columns="truth")


def scores(rows):
    return rows.set_index("score")["mean"]


def test_perfect_answers_and_their_opposite():
    rows, outcomes = sub.score_answers("own", perfect().sample(frac=1, random_state=0))
    assert (
        scores(rows)["AUROC"] == scores(rows)["name, recall at 1"] == 1 and scores(rows)["false alarms"] == 0
    )
    assert set(rows.networks) == {2} and set(rows.method) == {"own"}
    assert rows.absences.iloc[0] == sum((output_truth(name) == "absence").sum() for name in NETWORKS)
    assert (outcomes.value == 1).all()
    rows, _ = sub.score_answers("own", perfect(-1))
    assert scores(rows)["AUROC"] == 0 and scores(rows)["false alarms"] == 1


def test_silence_is_coverage():
    answers = perfect()
    first = answers.index[answers.value == 1][0]
    for empty in (None, ""):
        answers["value"] = answers.value.astype(object)
        answers.loc[first, "value"] = empty
        rows, _ = sub.score_answers("own", answers)
        count = rows.absences.iloc[0]
        assert rows.coverage.iloc[0] == pytest.approx(1 - 1 / count) and scores(rows)["AUROC"] == 1


def test_numbers_as_text_are_numbers():
    rows, _ = sub.score_answers("own", perfect().astype({"value": str, "unit": str}))
    assert scores(rows)["AUROC"] == 1


WRONG = {
    "no column value": (lambda a: a.drop(columns="value"), "no column value"),
    "none": (lambda a: a.iloc[:0], "there are none"),
    "missing": (lambda a: a.drop(index=3), r"1 pairs: \(plain/0, outputs, 0, .*\) is missing"),
    "no twin": (lambda a: a[~a.network.str.endswith(" twin")], "56 pairs: .* is missing"),
    "twice": (lambda a: pd.concat([a, a.iloc[[5]]]), "1 pairs: .* is there twice"),
    "unknown concept": (lambda a: pd.concat([a, a.iloc[[5]].assign(concept="dog")]), "dog.* does not exist"),
    "unknown unit": (lambda a: pd.concat([a, a.iloc[[5]].assign(unit=9)]), "does not exist"),
    "unit of text": (lambda a: pd.concat([a, a.iloc[[5]].assign(unit="x")]), "does not exist"),
    "unknown layer": (lambda a: pd.concat([a, a.iloc[[5]].assign(layer="fc")]), "does not exist"),
    "unknown network": (lambda a: pd.concat([a, a.iloc[[5]].assign(network="moon/0")]), "no network 'moon/0'"),
    "text": (lambda a: a.assign(value=["high", *a.value[1:]]), "1 values are no numbers, first 'high'"),
    "infinite": (lambda a: a.assign(value=[float("inf"), *a.value[1:]]), "no numbers, first 'inf'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_refused(case):
    change, problem = WRONG[case]
    with pytest.raises(InputError, match=problem):
        sub.score_answers("own", change(perfect()))


def test_the_name_of_a_method_that_ships_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="ships"):
        sub.run_method("naming", sub.method_of(None), SMALL)
    with pytest.raises(InputError, match="ships"):
        sub.score_answers("naming", perfect())


def test_a_function_of_a_task_is_a_method():
    asked = []

    def method(task):
        asked.append(len(task.images))
        return torch.rand(len(task.units), 7)

    rows, outcomes = sub.run_method("own", sub.method_of(method), SMALL)
    assert asked == [64] * 4 and set(rows.networks) == {2}
    assert "pointing game" not in set(outcomes.score) and "AUROC" in set(outcomes.score)


def test_a_function_of_a_unit_and_images_is_a_map_method():
    rows, _ = sub.run_method("own", sub.method_of(lambda unit, images: images.mean(dim=1), maps=True), SMALL)
    assert {"AUROC", "pointing game", "mask precision", "window, recall at 1", "false alarms"} <= set(
        rows.score
    )


def test_a_method_that_fails_says_where_and_why():
    def method(task):
        raise ZeroDivisionError("no luck")

    with pytest.raises(InputError, match=r"fails on .*/0 \(ZeroDivisionError: 'no luck'\)"):
        sub.run_method("own", sub.method_of(method), SMALL)
    with pytest.raises(InputError, match=r"answers with shape \(7, 4\)"):
        sub.run_method("own", sub.method_of(lambda task: torch.zeros(7, 4)), SMALL)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A leaderboard and outcomes of two methods that ship: one that is right and one that is wrong."""
    boards, wide = [], None
    for name, sign in (("insertion, absence score", 1), ("lrp, all", -1)):
        monkeypatch.setattr(sub, "_require_own", lambda name: None)
        rows, outcomes = sub.score_answers(name, perfect(sign))
        boards.append(rows)
        column = outcomes.set_index(["score", *sub.PAIR]).value.rename(name)
        wide = column.to_frame() if wide is None else wide.join(column)
    monkeypatch.undo()
    pd.concat(boards).to_csv(tmp_path / "board.csv", index=False)
    wide.reset_index().to_csv(tmp_path / "outcomes.csv", index=False)
    tables = {"methods": tmp_path / "board.csv", "outcomes": tmp_path / "outcomes.csv"}
    monkeypatch.setattr(sub, "SHIPPED", tables)
    return tmp_path


def test_a_row_is_appended_once_and_gives_way_to_a_later_one(shipped):
    table = shipped / "mine" / "table.csv"
    for sign in (-1, 1):
        rows, _ = sub.score_answers("own", perfect(sign))
        board = sub.append_row(rows, table)
        assert pd.read_csv(table).equals(pd.read_csv(table)[board.columns]) and len(board) == 3 * len(rows)
        assert (board.method == "own").sum() == len(rows)
    with pytest.raises(InputError, match="ships"):
        sub.append_row(rows.assign(method="naming"), table)


def test_a_method_is_compared_over_its_own_absences(shipped):
    _, outcomes = sub.score_answers("own", perfect()[lambda a: a.network.str.startswith("plain/0")])
    found = sub.against_shipped(outcomes).set_index("method")
    assert found.difference.to_dict() == {"insertion, absence score": 0, "lrp, all": 1}
    assert set(found.absences) == {(output_truth("plain/0") == "absence").sum()}


def test_the_command_scores_a_file(shipped, capsys):
    answers, table = shipped / "mine.csv", shipped / "table.csv"
    perfect().to_csv(answers, index=False)
    assert command.main(["score", str(answers), "--table", str(table)]) == 0
    said = capsys.readouterr().out
    assert "mine: place 1 among 2 methods that ship" in said and "(100% of those asked)" in said
    assert "on 2 networks, too few" in said and "surely" not in said
    assert "mine" in set(pd.read_csv(table).method)
    perfect().assign(value="").to_csv(answers, index=False)
    assert command.main(["score", str(answers), "--table", str(table)]) == 0, "silence is no error"
    assert "mine says nothing of any absence, so it has no place" in capsys.readouterr().out


def test_the_verdict_is_over_what_a_method_speaks_of_and_sure_only_over_several_networks(
    shipped, monkeypatch
):
    _, outcomes = sub.score_answers("own", perfect())
    outcomes.loc[outcomes.network == outcomes.network.iloc[0], "value"] = np.nan
    said = sub.verdict(outcomes)
    assert "place 1 among 2" in said and "(100%" not in said and "on 1 networks" in said
    monkeypatch.setattr(sub, "FEW", 1)
    sure = sub.verdict(sub.score_answers("own", perfect(-1))[1])
    assert "place 2 among 2" in sure and "surely worse than 1" in sure and "surely better than 0" in sure


def test_the_command_runs_a_method_of_a_file(shipped, capsys):
    (shipped / "mine.py").write_text("def red(unit, images):\n    return images[:, 0]\n")
    given = [
        "run",
        f"{shipped / 'mine.py'}:red",
        "--maps",
        "--networks",
        "1",
        "--table",
        str(shipped / "t.csv"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "BenchmarkConfig", lambda networks, hidden: SMALL)
        assert command.main(given) == 0
    assert "red: place" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "maps", "said"),
    [
        (lambda unit, images: images, True, "draws shape"),
        (lambda unit, images: images[:, 0], False, "needs --maps"),
        (lambda task: np.zeros((4, 7)), False, ""),
    ],
)
def test_answers_of_another_kind(function, maps, said):
    if not said:  # an array is as good as a tensor
        rows, _ = sub.run_method("own", sub.method_of(function, maps), SMALL)
        assert len(rows)
        return
    with pytest.raises(InputError, match=said):
        sub.run_method("own", sub.method_of(function, maps), SMALL)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00\x81", b'a,b\n1,2,3\n"x'])
def test_the_command_refuses_what_is_no_table(content, tmp_path, capsys):
    path = tmp_path / "answers.csv"
    if content is not None:
        path.write_bytes(content)
    assert command.main(["score", str(path)]) == 1
    assert capsys.readouterr().err.startswith("error: `answers`")


def test_the_methods_printed_on_the_page_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "benchmark.md").read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    for name, maps in (("greyed", False), ("gradient_times_input", True)):
        rows, _ = sub.run_method(name, sub.method_of(names[name], maps), SMALL)
        assert rows.set_index("score").coverage["AUROC"] > 0
    assert names["task"].windows.cut(names["task"].images).shape[1:] == (3, 24, 24)
