"""Files of a comparison: comparison.md with its figures, comparison.csv and runs.csv."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import isinf
from pathlib import Path

from losslab import runs
from losslab.analysis.compare import tables
from losslab.analysis.compare.comparison import Comparison
from losslab.analysis.compare.curves import TimeToReach
from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group, distinct_values, shorten
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.figures import save_png
from losslab.io.tables import markdown_table, write_csv
from losslab.io.terminal import printable
from losslab.runs.sweep_summary import STUDY_SWEEPER, read_command

Section = tuple[str, str]
"""A heading, and the Markdown text below it."""
Row = tuple[object, ...]

_CONDITIONS = {
    "model": "model", "data": "data", "imbalance": "imbalance", "noise": "noise", "mix": "mix", "loss": "loss",
    "trainer.max_epochs": "epochs", "data.batch_size": "batch size",
}  # fmt: skip
"""The settings that the page names at its top, with the words for them."""
_MAX_COMMANDS = 4
_ADDED_BY_STUDY = {"-m", STUDY_SWEEPER, "hydra.launcher.fuse=auto"}
"""What `losslab study` adds to its arguments, to run a sweep of Hydra."""
_OUTPUT_KEYS = {"run_dir", "hydra.run.dir", "hydra.sweep.dir", "trust"}
_ABSOLUTE = re.compile(r"(?:(?<=file://)|(?<![\w./:~-]))/[^\s,;'\"()\[\]{}=]+")
"""An absolute path in an argument of a command."""
_TABLES = ("comparison.csv", "runs.csv", "matrix.csv")
_COMPARISON_COLUMNS = (
    "metric", "scale", "group", "n", "mean", "low", "high", "reference", "pairs", "difference", "difference_low",
    "difference_high", "p", "level", "verdict",
)  # fmt: skip


def write_report(
    comparison: Comparison, folder: Path, sections: Sequence[Section] = (), command: Sequence[str] = ()
) -> list[Path]:
    """Write all files of a comparison into an existing folder, and return their paths. Symbolic links are replaced.

    For `sections` and `command` see `page`.
    """
    figures = {figure_name(metric): comparison.figure(metric) for metric in comparison.metrics}
    if comparison.histories.names:
        figures["curves.png"] = comparison.curves_figure()
    for name, figure in figures.items():
        save_png(figure, folder / name)
    atomic.write_bytes(folder / "comparison.md", printable(page(comparison, sections, command)).encode())
    rows = [_comparison_row(each, group) for each in comparison.by_metric.values() for group in each.groups]
    write_csv(folder / "comparison.csv", _COMPARISON_COLUMNS, rows)
    rows = [row for group in comparison.ordered for row in _run_rows(comparison, group)]
    write_csv(folder / "runs.csv", ("group", "seed", "metric", "value", "note", "folder"), rows)
    return [folder / name for name in ("comparison.md", "comparison.csv", "runs.csv", *figures)]


def remove_old_files(folder: Path) -> None:
    """Remove the tables, the figures and the events of an earlier comparison, which another one may not replace."""
    page_file = folder / "comparison.md"
    if not page_file.is_file():
        return
    figures = re.findall(r"\]\(([\w.@+-]+\.png)\)", page_file.read_text(errors="replace"))
    for path in [*map(folder.joinpath, (*_TABLES, *figures)), *folder.glob("tensorboard/*/events.out.tfevents.*")]:
        if not any(part.is_symlink() for part in (path.parent, path.parent.parent)):
            path.unlink(missing_ok=True)
    for events in folder.glob("tensorboard/*/"):
        with suppress(OSError):  # it contains files that are not from a comparison, or is a link
            events.rmdir()
    with suppress(OSError):
        (folder / "tensorboard").rmdir()


def figure_name(metric: str) -> str:
    """Return the file name of the figure of a metric."""
    return f"{metric.replace('/', '-')}.png"


def page(comparison: Comparison, sections: Sequence[Section] = (), command: Sequence[str] = ()) -> str:
    """Return the text of comparison.md, with additional sections after those of the comparison itself.

    Args:
        comparison: the comparison.
        sections: the additional sections.
        command: the command line that makes the page, such as ("losslab", "compare", "outputs"); () for none.
    """
    head = [f"# {summary(comparison)}", "\n".join(f"- {line}" for line in conditions(comparison.groups))]
    commands = [*training_commands(comparison.groups), *([_command_line(command)] if command else [])]
    head += ["\n".join(["```bash", *commands, "```"])] if commands else []
    parts = []
    for metric in comparison.metrics:
        finding = tables.finding(comparison.by_metric[metric])
        figure = f"![{finding}]({figure_name(metric)})"
        parts.append((metric, f"{finding}.\n\n{figure}\n\n{comparison.table_markdown(metric)}"))
    if comparison.histories.names:
        curves = tables.curves_finding(comparison.groups, comparison.time_to_reach)
        parts.append(("Curves", f"![{curves}](curves.png)"))
    reach = comparison.time_to_reach
    if reach is not None:
        parts.append((reach_title(reach), markdown_table(reach_rows(reach))))
    parts += sections
    if comparison.notes:
        parts.append(("How to read this", "\n".join(f"- {note}" for note in comparison.notes)))
    if comparison.not_counted:
        parts.append(("Not counted", "\n".join(f"- {what}: {why}" for what, why in comparison.not_counted)))
    return "\n\n".join([*head, *(f"## {title}\n\n{body}" for title, body in parts)]) + "\n"


def summary(comparison: Comparison) -> str:
    """Return the number of runs and groups, such as "6 runs in 2 groups"."""
    groups, count = len(comparison.groups), sum(len(group.runs) for group in comparison.groups)
    return f"{count} run{'s' * (count != 1)} in {groups} group{'s' * (groups != 1)}"


def conditions(groups: Sequence[Group]) -> list[str]:
    """Return lines with the model, data, loss, epochs and batch size, if the groups share them, and with the seeds."""
    parts = []
    for key, word in _CONDITIONS.items():
        values = distinct_values(groups, key)
        if len(values) == 1 and values[0] not in {"none", "null"}:
            parts.append(f"{word} {values[0]}")
        elif len(values) > 1 and key != "loss":
            parts.append(f"{word} {shorten(values)} (groups differ)")
        elif key == "data.batch_size":
            parts.append(f"{word}: all examples")
    counts = [len(group.runs) for group in groups if group.runs]
    seeds = sorted({run.seed for group in groups for run in group.runs})
    numbers = f"{tables.seed_counts(counts)}: {_list_seeds(seeds)}" if counts else "no finished run"
    return ["; ".join(parts), numbers]


def _list_seeds(seeds: Sequence[int]) -> str:
    """List seeds in increasing order, such as "0 to 4" for 0, 1, 2, 3, 4."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return shorten([*map(str, seeds)])


def training_commands(groups: Sequence[Group]) -> list[str]:
    """Return the commands that trained the runs: each recorded command of a sweep, and those of single runs.

    Of many commands, only the first are returned, and a comment. Paths outside of the working directory are shortened.
    """
    trained = [run for group in groups for run in group.runs]
    sweeps = dict.fromkeys(run.sweep for run in trained if run.sweep is not None)
    of_sweep = {sweep: _recorded_command(sweep) for sweep in sweeps}
    lines = [of_sweep[run.sweep] if run.sweep is not None else _single_command(run) for run in trained]
    commands, unknown = [*dict.fromkeys(filter(None, lines))], lines.count("")
    if len(commands) > _MAX_COMMANDS:
        commands[_MAX_COMMANDS - 1 :] = [f"# and {len(commands) - _MAX_COMMANDS + 1} more commands"]
    return commands + ([f"# the command of {unknown} run{'s' * (unknown > 1)} is not recorded"] if unknown else [])


def _recorded_command(sweep: Path) -> str:
    with suppress(LabError):
        words = read_command(sweep)
        if STUDY_SWEEPER not in words:
            return _command_line(["losslab", "train", *words])
        typed = [word.replace("hydra.sweeper.", "study.", 1) for word in words if word not in _ADDED_BY_STUDY]
        return _command_line(["losslab", "study", *typed])
    return ""


def _single_command(run: Run) -> str:
    return _command_line(["losslab", "train", *run.overrides]) if run.overrides else ""


def _command_line(words: Sequence[str]) -> str:
    """Join the words of a command, without its output folder and without absolute paths of this machine."""
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in _OUTPUT_KEYS]
    shown = [_short_path(word) if word.startswith("/") else _ABSOLUTE.sub(_short_match, word) for word in kept]
    return " ".join(shlex.join(shown).split())  # a line break would forge lines of the page


def _short_match(found: re.Match[str]) -> str:
    return _short_path(found[0])


def _short_path(path: str) -> str:
    shown = str(runs.display_path(Path(path)))
    return f".../{Path(path).name}" if shown.startswith("/") else shown


def reach_title(reach: TimeToReach) -> str:
    """Return the heading of the table of `reach_rows`. It explains the value to reach if no value was requested."""
    default = "" if reach.requested else ", which the worst group reaches on average"
    return f"Time to reach {reach.metric}={reach.value:g}{default}"


def reach_rows(reach: TimeToReach) -> list[tuple[str, ...]]:
    """Return a header and a row per group: how many runs reached the value, median epochs and median seconds."""
    head, labels = tables.group_labels([time.group for time in reach.times])
    rows = [(label, *time.cells()) for label, time in zip(labels, reach.times, strict=True)]
    return [(head, "reached by", "epochs: median (range)", "seconds: median (range)"), *rows]


def _comparison_row(comparison: MetricComparison, group: Group) -> Row:
    """Return an unrounded row of comparison.csv; None for missing values, such as an interval of one seed."""
    scale, count = "ratio" if comparison.ratios else "difference", len(group.values(comparison.metric))
    ends = _ends(comparison.estimate(group))
    row = (comparison.metric, scale, group.label, count, comparison.mean(group), *ends)
    diff = comparison.difference(group)
    if diff is None:
        return (*row, *[None] * (len(_COMPARISON_COLUMNS) - len(row)))
    found = (diff.reference.label, diff.pairs, diff.mean, *_ends(diff.interval), diff.p, diff.level, diff.verdict)
    return (*row, *found)


def _ends(interval: Estimate | GeometricEstimate | None) -> Row:
    return (interval.low, interval.high) if interval else (None, None)


def _run_rows(comparison: Comparison, group: Group) -> Iterator[Row]:
    notes = dict.fromkeys(group.runs, "") | dict.fromkeys(group.repeated, "not counted: a newer run has this seed")
    cells: list[tuple[Run, str | None, float | None, str]] = [
        (run, metric, run.metrics.get(metric), note) for run, note in notes.items() for metric in comparison.metrics
    ]
    cells += [(run, None, None, run.problem) for run in group.excluded]
    reach = comparison.time_to_reach
    if reach is not None:
        name = f"epochs to {reach.metric}={reach.value:g}"
        for time in (time for each in reach.times if each.group is group for time in each.runs):
            epochs, note = (None, "not reached") if isinf(time.epoch) else (int(time.epoch), "")
            cells.append((time.run, name, epochs, note))
    for run, *row in cells:
        yield group.label, run.seed, *row, runs.display_path(run.folder.path)
