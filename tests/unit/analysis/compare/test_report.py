"""Written files: the page, CSV files, figures and TensorBoard events."""

import csv
from dataclasses import replace

import pytest
from folders import accuracies, run, summary
from matplotlib.text import Text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from losslab.analysis.compare import compare, report, tensorboard
from losslab.io.figures import loss_colour, rasterize


@pytest.fixture
def runs(tmp_path):
    runs = tmp_path / "runs"
    accuracies(runs, a={0: 0.1, 1: 0.2, 2: 0.31}, b={0: 0.5, 1: 0.62, 2: 0.7}, c={0: 0.52, 1: 0.61, 2: 0.69})
    run(runs / "d", "d", 0, metrics=False)
    return runs


def rows(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_report_has_tables_figures_notes_and_what_is_not_counted(runs, tmp_path):
    written = report.write_report(compare([runs], baseline="loss=a"), tmp_path, [("More", "said")])
    names = ["comparison.md", "comparison.csv", "runs.csv", "test-accuracy.png", "curves.png"]
    assert [file.name for file in written] == names
    assert all(file.stat().st_size for file in written)
    text = (tmp_path / "comparison.md").read_text()
    assert text.startswith("# 9 runs in 4 groups\n")
    assert "both other losses are better than a in test accuracy, b by 40.3 ± 5.5 points (n = 3 seeds)." in text
    assert "| b | 3 | 0.61 ± 0.25 | +0.403 ± 0.055 | better |" in text
    assert "## Time to reach val/accuracy=" in text
    assert "## More\n\nsaid" in text
    assert "- loss=d seed=0: unfinished: 3 of 3 epochs" in text


def head(*folders, command=()):
    """Return the lines of the page before the first table."""
    return report.page(compare([*folders]), command=command).partition("\n## ")[0].splitlines()


def test_the_page_says_what_the_groups_share(tmp_path):
    for loss in "ab":
        for seed in (0, 1):
            run(tmp_path / f"{loss}{seed}", loss, seed)
    assert head(tmp_path)[:4] == [
        "# 4 runs in 2 groups", "", "- model mlp; data digits; epochs 3; batch size 32", "- n = 2 seeds: 0, 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("seeds", "listed"), [((3, 1, 2), "1 to 3"), ((0, 1, 3), "0, 1, 3")])
def test_the_page_lists_the_seeds(seeds, listed, tmp_path):
    for seed in seeds:
        run(tmp_path / str(seed), "a", seed)
    assert head(tmp_path)[3] == f"- n = 3 seeds: {listed}"


def test_the_page_says_in_which_conditions_groups_differ(tmp_path):
    noisy = {"choices__noise": "symmetric", "noise___target_": "losslab.data.corruption.label_noise.Symmetric"}
    run(tmp_path / "a", "a", 0, data__batch_size=None, **noisy)
    run(tmp_path / "b", "a", 1, data__batch_size=None, trainer__max_epochs=9, choices__model="cnn", **noisy)
    run(tmp_path / "c", "a", 0, data__batch_size=None, trainer__max_epochs=9, choices__model="cnn", **noisy)
    shared, seeds = head(tmp_path)[2:4]
    assert shared.split("; ") == [
        "- model mlp, cnn (groups differ)", "data digits", "noise symmetric", "loss a", "epochs 3, 9 (groups differ)",
        "batch size: all examples",
    ]  # fmt: skip
    assert seeds == "- n = 1 to 2 seeds: 0, 1"


def test_the_page_has_the_commands_without_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accuracies(tmp_path / "sweep", a={0: 0.1}, b={0: 0.2})
    words = [
        "-m", "loss=a,b", "run_dir=/home/me/sweep", "trust=[x]", "data.dir=/home/me/images",
        f"ckpt_path={tmp_path}/a b.pth", "hydra.searchpath=[file:///home/me/conf,pkg://mine]",
        "data.url=https://there/x", "+notes.a=1/2", "a\n```b",
    ]  # fmt: skip
    rows = [{"folder": f"{loss}-s0", "overrides": [f"loss={loss}"]} for loss in "ab"]
    summary(tmp_path / "sweep", *rows, command=words)
    command = ("losslab", "compare", f"{tmp_path}/sweep", "/elsewhere/my runs", "--baseline", "loss=a b")
    trained, compared = head("sweep", command=command)[6:8]
    assert trained == (
        "losslab train -m loss=a,b data.dir=.../images 'ckpt_path=a b.pth' "
        "'hydra.searchpath=[file://.../conf,pkg://mine]' data.url=https://there/x +notes.a=1/2 'a ```b'"
    )
    assert compared == "losslab compare sweep '.../my runs' --baseline 'loss=a b'"


def test_the_page_has_the_commands_of_single_runs_and_counts_those_that_are_not_recorded(tmp_path):
    for seed in range(6):
        folder = run(tmp_path / str(seed), "a", seed)
        if seed < 5:
            (folder / ".hydra").mkdir()
            (folder / ".hydra" / "overrides.yaml").write_text(f"- loss=a\n- seed={seed}\n- run_dir=x{seed}\n")
    assert head(tmp_path)[5:] == [
        "```bash",
        *(f"losslab train loss=a seed={seed}" for seed in range(3)),
        "# and 2 more commands",
        "# the command of 1 run is not recorded",
        "```",
    ]


def test_the_command_of_a_study_is_that_of_the_study(tmp_path):
    run(tmp_path / "0-a", "a")
    words = ["-m", "hydra/sweeper=study", "hydra.sweep.dir='/home/me/st'", "hydra.sweeper.max_seeds=5", "loss=a,b"]
    summary(tmp_path, {"folder": "0-a", "overrides": ["loss=a"]}, command=[*words, "hydra.launcher.fuse=auto"])
    assert head(tmp_path)[6] == "losslab study study.max_seeds=5 loss=a,b"


@pytest.mark.parametrize("command", [None, 5, ["a", 5]])
def test_a_missing_or_damaged_command_of_a_sweep_is_not_recorded(tmp_path, command):
    run(tmp_path / "0-a", "a")
    summary(tmp_path, {"folder": "0-a", "overrides": ["loss=a"]}, command=command)
    assert head(tmp_path)[5:] == ["```bash", "# the command of 1 run is not recorded", "```"]


def test_comparison_csv_is_not_rounded(runs, tmp_path):
    comparison = compare([runs], baseline="loss=a")
    report.write_report(comparison, tmp_path)
    found = {row["group"]: row for row in rows(tmp_path / "comparison.csv")}
    comparison_by_metric = comparison.by_metric["test/accuracy"]
    apart = next(one for one in comparison_by_metric.differences if one.group.label == "loss=b")
    assert float(found["loss=b"]["difference_low"]) == apart.interval.low
    assert float(found["loss=b"]["p"]) == apart.p
    assert (found["loss=b"]["verdict"], found["loss=b"]["reference"]) == ("better", "loss=a")
    assert (found["loss=a"]["difference"], found["loss=d"]["mean"]) == ("", "")


def test_runs_csv_has_every_run(runs, tmp_path):
    run(runs / "again", "a", 2, metrics={"test/accuracy": 0.3})
    report.write_report(compare([runs]), tmp_path)
    found = rows(tmp_path / "runs.csv")
    assert {row["folder"].rpartition("/")[2] for row in found} == {path.name for path in runs.iterdir()}
    notes = {row["note"].partition(":")[0] for row in found}
    assert notes == {"", "unfinished", "not counted"}
    reached = [row for row in found if row["metric"].startswith("epochs to")]
    assert len(reached) == 9


def test_a_figure_shows_each_seed_and_each_verdict(runs):
    figure = compare([runs], baseline="loss=a").figure()
    left, right = figure.axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert sorted(len(line.get_xdata()) for line in dots) == [3, 3, 3]
    assert [text.get_text() for text in right.texts] == ["better", "better", "baseline"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "c", "a"]


def test_a_figure_of_one_seed_has_no_interval(tmp_path):
    figure = compare([accuracies(tmp_path, a={0: 0.5}, b={0: 0.6})]).figure()
    lines = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "-"]
    assert [line.get_xdata()[0] for line in lines] == [0]  # the line of no difference


def test_a_figure_shows_at_most_sixty_groups(tmp_path):
    accuracies(tmp_path, **{f"l{number:03}": {0: number / 100} for number in range(70)})
    figure = compare([tmp_path]).figure()
    assert len(figure.axes[0].get_yticks()) == 60
    assert figure.axes[0].get_xlabel().endswith("(the 60 best of 70 groups)")


def long_name(number):
    return f"a{number}_{'long' * number}"


def test_titles_are_one_line_that_fits_into_the_figure(tmp_path):
    for number in range(8):
        for seed in (0, 1):
            metrics = {"test/accuracy": 0.1 * number + 0.01 * seed}
            run(
                tmp_path / f"{number}-{seed}",
                long_name(number),
                seed,
                metrics=metrics,
                optimizer__lr=number,
                model__hidden=number,
            )
    comparison = compare([tmp_path], baseline=f"loss={long_name(4)}")
    for figure in (comparison.figure(), comparison.curves_figure()):
        rasterize(figure)
        (title,) = (text for text in figure.texts if text.get_text() == figure.get_suptitle())
        assert "\n" not in title.get_text()
        assert 0 <= title.get_window_extent().x0 < title.get_window_extent().x1 <= figure.bbox.width


def test_the_heading_of_the_groups_is_within_the_figure(tmp_path):
    for rate in (0.01, 0.02):
        run(tmp_path / str(rate), optimizer__lr=rate)
    figure = compare([tmp_path]).figure()
    rasterize(figure)
    (heading,) = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() == "optimizer.lr")
    assert heading.get_window_extent().x0 >= 0


def test_files_of_an_earlier_comparison_are_removed_and_those_of_the_user_are_kept(runs, tmp_path):
    folder, comparison = tmp_path / "out", compare([runs])
    folder.mkdir()
    report.write_report(comparison, folder, [("Matrix", "![matrix](matrix.png)")])
    tensorboard.write_events(comparison.ordered, comparison.histories, folder / "tensorboard")
    own = [folder / "mine.png", folder / "tensorboard" / "mine" / "notes.txt"]
    own[1].parent.mkdir()
    for path in [*own, folder / "matrix.png", folder / "matrix.csv"]:
        path.touch()
    report.remove_old_files(folder)
    assert {path for path in folder.rglob("*") if path.is_file()} == {*own, folder / "comparison.md"}


def test_groups_have_the_colours_of_their_losses_in_all_figures(runs):
    comparison = compare([runs])
    handles = comparison.curves_figure().legends[0].legend_handles
    assert {handle.get_label(): handle.get_color() for handle in handles} == {
        name: loss_colour(name) for name in "abcd"
    }
    left, right = comparison.figure().axes
    best_to_worst = [label.get_text() for label in left.get_yticklabels()]
    for axes in (left, right):
        means = {line.get_ydata()[0]: line.get_color() for line in axes.lines if line.get_marker() == "D"}
        assert [means[row] for row in sorted(means)] == [loss_colour(name) for name in best_to_worst]


def test_groups_of_one_loss_have_shades_of_its_colour(tmp_path):
    for gamma in (1, 2, 5):
        run(tmp_path / str(gamma), "focal", loss__gamma=gamma)
    handles = compare([tmp_path]).curves_figure().legends[0].legend_handles
    colours = {handle.get_label(): handle.get_color() for handle in handles}
    assert colours["2"] == loss_colour("focal")
    assert len({*colours.values()}) == 3


def test_tensorboard_folders_of_long_or_similar_names_differ(runs, tmp_path):
    comparison = compare([runs])
    names = ("a/b", "a_b", "é" * 200 + "1", "é" * 200 + "2")
    groups = [replace(group, name=(name,)) for group, name in zip(comparison.groups, names, strict=True)]
    tensorboard.write_events(groups, comparison.histories, tmp_path / "board")
    assert len([*(tmp_path / "board").iterdir()]) == 4


def test_tensorboard_shows_groups_with_bands(runs, tmp_path):
    comparison = compare([runs])
    for _ in range(2):  # the second time replaces what the first wrote
        tensorboard.write_events(comparison.ordered, comparison.histories, tmp_path / "board")
    assert {path.name for path in (tmp_path / "board").iterdir()} == {f"loss={name}" for name in "abcd"}
    events = EventAccumulator(str(tmp_path / "board" / "loss=b"))
    events.Reload()
    curve = comparison.histories.curve(comparison.ordered[0], "val/accuracy")
    scalars = events.Scalars("val/accuracy")
    assert [event.step for event in scalars] == [10, 20, 30], "the steps of the epochs, as the runs have them"
    assert [event.value for event in scalars] == pytest.approx(curve.mean)
    (layout,) = events.Tensors("custom_scalars__config__")
    charts = Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart
    for chart in charts:
        (series,) = chart.margin.series
        assert {series.value, series.lower, series.upper} <= set(events.Tags()["scalars"])
    assert any("relative to its first value" in chart.title for chart in charts)
