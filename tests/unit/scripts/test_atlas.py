"""docs/atlas.md: a sentence at its top is written only if it follows from the results; the tables show the results."""

from dataclasses import replace

import pytest
from pages.atlas import figure, findings, text
from pages.atlas.studies import CLASSIFICATION, REGRESSION, TASKS
from pages.atlas.table import Atlas, rate_table, verdict_table
from pages.study import StudyRow, write_rows

from losslab.losses import catalog


def row(group, verdict, difference=None, metric="accuracy", rate=0.01, relative_rate=1.0, n=10):
    ends = (None, None) if difference is None else (0.9 * difference, 1.1 * difference)
    return StudyRow(
        group, metric, n, 0.9, 0.8, 1.0, difference, *ends, verdict, rate, relative_rate, rate, 10 * rate, at_edge=False
    )


def classes(*rows, count=8):
    """Return rows of classification with these, the reference, and equivalent others up to a count."""
    others = [row(f"other_{index}", "equivalent", 0.001) for index in range(count - len(rows))]
    return [row("cross_entropy", "reference"), *rows, *others]


def errors(*rows, count=8):
    others = [row(f"other_{index}", "equivalent", 1.01, "mse") for index in range(count - len(rows))]
    return [row("mse", "reference", metric="mse"), *rows, *others]


@pytest.fixture
def results():
    better = [row(name, "better", 0.02) for name in ("gce", "mae", "nce")]
    adjusted = row("logit_adjusted", "better", 0.04, "recall", rate=0.1, relative_rate=10.0)
    posthoc = replace(row("cross_entropy + logit adjustment", "better", 0.03, "recall"), rate=None, relative_rate=None)
    robust = [row(name, "better", 0.25, "mse") for name in ("huber", "l1", "tukey", "welsch")]
    return {
        "clean": classes(row("mae", "worse", -0.01, relative_rate=31.0), row("gce", "undecided", -0.002)),
        "wrong_20": classes(better[0], row("mae", "worse", -0.02, relative_rate=10.0)),
        "wrong_40": classes(*better, row("focal", "equivalent", 0.001, relative_rate=0.1)),
        "long_tail": classes(adjusted, posthoc),
        "gaussian": errors(),
        "outliers": errors(*robust),
        "heteroscedastic": errors(row("gaussian_nll", "better", 0.2, "mse"), row("l1", "better", 0.5, "mse")),
        "diabetes": errors(),
    }


@pytest.fixture
def write(tmp_path):
    def write(results):
        for name, rows in results.items():
            write_rows(rows, tmp_path / f"{name}.csv")
        return {task.name: Atlas.read(task, tmp_path) for task in TASKS}

    return write


def test_the_sentences_contain_the_numbers(write, results):
    atlases = write(results)
    assert findings.clean_labels(atlases) == (
        "With clean labels, none of 8 other losses is shown to be better than `cross_entropy`; 6 are equivalent, 1 "
        "undecided and 1 worse."
    )
    assert findings.wrong_labels(atlases).startswith(
        "With 20 % wrong labels, 1 loss is (by 2.0 points, `gce`), and with 40 %, 3 losses are (by up to 2.0 points, "
        "`gce`) better than `cross_entropy`"
    )
    assert "1 loss is better" in findings.long_tail(atlases)
    assert "gains 4.0 points, and adjusting the logits" in findings.long_tail(atlases)
    assert "differ by a factor of 31, and in 4 of" in findings.learning_rates(atlases)
    assert "4 of 8 losses have a lower test error than `mse`" in findings.robust_regression(atlases)
    assert "(`huber`) by a factor of 4.0" in findings.robust_regression(atlases)
    assert "by a factor of 5.0 lower than that of `mse`; 1 other loss is better" in findings.unequal_noise(atlases)
    assert len(findings.findings(atlases)) == 5


@pytest.mark.parametrize(
    ("sentence", "situation", "rows"),
    [
        (findings.long_tail, "long_tail", classes(row("logit_adjusted", "undecided", 0.01, "recall"))),
        (findings.learning_rates, "clean", classes()),
        (findings.robust_regression, "outliers", errors()),
        (findings.robust_regression, "gaussian", errors(*(row(f"a{n}", "worse", 1.2, "mse") for n in range(4)))),
        (findings.no_loss_for_all, "wrong_40", classes(row("gce", "better", 0.01))),
        (findings.unequal_noise, "heteroscedastic", errors(row("l1", "better", 0.3, "mse"))),
        (findings.real_values, "diabetes", errors(row("huber", "better", 0.9, "mse"))),
    ],
)
def test_a_sentence_whose_condition_does_not_hold_is_not_written(write, results, sentence, situation, rows):
    assert sentence(write(results)) is not None
    assert sentence(write({**results, situation: rows})) is None


def test_the_sentence_about_clean_labels_names_the_best_loss(write, results):
    some = [row("gce", "better", 0.02), row("mae", "worse", -0.01)]
    assert findings.clean_labels(write({**results, "clean": classes(*some)})) == (
        "With clean labels, only `gce` of 8 other losses is better than `cross_entropy`, by 2.0 points; 6 are "
        "equivalent, 0 undecided and 1 worse."
    )
    some = [row("gce", "better", 0.02), row("mae", "better", 0.03)]
    assert "2 of 8 other losses are better than `cross_entropy`, by up to 3.0 points (`mae`); 6" in (
        findings.clean_labels(write({**results, "clean": classes(*some)}))
    )


def test_a_sentence_about_a_situation_without_results_is_not_written(write, tmp_path):
    assert findings.findings(write({"gaussian": errors()})) == []
    assert findings.findings({task.name: Atlas.read(task, tmp_path / "none") for task in TASKS}) == []


def test_losses_are_sorted_by_their_mean_gain_and_methods_without_effect_are_left_out(write):
    temperature = row("cross_entropy + temperature", "same runs")
    rows = [row("cross_entropy", "reference"), row("mae", "worse", -0.2), temperature, row("gce", "better", 0.1)]
    atlas = write({"clean": rows})["classification"]
    assert atlas.labels == ["gce", "mae"]
    assert "| `gce` | +10.0 (+9.0 to +11.0) better |" in verdict_table(atlas)
    assert "| `gce` | × 1 (10) |" in rate_table(atlas)


def test_a_lower_error_is_a_gain(write):
    atlas = write({"outliers": errors(row("huber", "better", 0.25, "mse"))})["regression"]
    assert atlas.gain("outliers", "huber") == 2
    assert atlas.labels[0] == "huber"


def test_the_page_names_the_situations_that_have_not_been_run(write, results, tmp_path):
    write({name: rows for name, rows in results.items() if name in {"clean", "gaussian"}})
    record = {"conditions": "today", "seconds": 60}
    page = text(TASKS, {"clean": record, "gaussian": record}, tmp_path)
    assert "in 2 situations" in page
    assert "Not run yet: 20 % wrong labels, 40 % wrong labels, long tail, outliers" in page
    assert "They took 2 minutes" in page


def test_the_figure_has_a_cell_for_each_loss_and_situation(write, results):
    atlas = write(results)["classification"]
    axes, bar = figure.draw(atlas).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == atlas.labels
    assert "+4.0 ▲" in {each.get_text() for each in axes.texts}
    assert axes.figure.get_suptitle() == "Better than cross_entropy, from left to right: 0, 1, 3, 1 of 32 losses"
    assert bar.get_yticklabels()[-1].get_text() == "+5 or better"


def test_each_loss_is_compared_or_left_out_for_a_reason():
    named = [{*task.losses, *task.left_out} for task in TASKS]
    assert set.union(*named) == {*catalog.names(), "custom"}
    assert not named[0] & named[1]
    assert not {*CLASSIFICATION.losses} & {*CLASSIFICATION.left_out}
    assert REGRESSION.reference in REGRESSION.losses
