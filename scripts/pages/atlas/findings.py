"""The sentences at the top of the atlas. Each follows from the results, or is not written."""

from collections.abc import Callable, Mapping

from pages.atlas.table import BETTER, EQUIVALENT, UNDECIDED, WORSE, Atlas, span
from pages.study import StudyRow

_MANY = 5
"""The number of sentences."""
_NOISE = ("wrong_20", "wrong_40")
_ADJUSTMENT = "logit adjustment"

Atlases = Mapping[str, Atlas]
"""The results by the name of the task."""


def findings(atlases: Atlases) -> list[str]:
    """Return at most five sentences that hold for the results."""
    found = (sentence(atlases) for sentence in _SENTENCES)
    return [sentence for sentence in found if sentence is not None][:_MANY]


def clean_labels(atlases: Atlases) -> str | None:
    """How many losses are better than cross_entropy with clean data."""
    atlas = atlases["classification"]
    others, better = atlas.compared("clean"), atlas.with_verdict("clean", BETTER)
    if not others:
        return None
    counts = {word: len(atlas.with_verdict("clean", word)) for word in (EQUIVALENT, UNDECIDED, WORSE)}
    rest = f"{_are(counts[EQUIVALENT])} equivalent, {counts[UNDECIDED]} undecided and {counts[WORSE]} worse"
    if not better:
        found = f"none of {len(others)} other losses is shown to be better than `cross_entropy`"
    elif len(better) == 1:
        found = f"only `{better[0].group}` of {len(others)} other losses is better than `cross_entropy`"
        found += f", by {_points(atlas, 'clean', better[0])}"
    else:
        found = f"{len(better)} of {len(others)} other losses are better than `cross_entropy`"
        found += f", by up to {_points(atlas, 'clean', better[0])} (`{better[0].group}`)"
    return f"With clean labels, {found}; {rest}."


def wrong_labels(atlases: Atlases) -> str | None:
    """How many losses are better than cross_entropy with wrong labels."""
    atlas = atlases["classification"]
    if set(_NOISE) - atlas.rows.keys():
        return None
    few, many = (_better_losses(atlas, name) for name in _NOISE)
    return (
        f"With 20 % wrong labels, {few}, and with 40 %, {many} better than `cross_entropy`, which is stopped at its "
        "best epoch and has a tuned learning rate."
    )


def _better_losses(atlas: Atlas, situation: str) -> str:
    better = atlas.with_verdict(situation, BETTER)
    by = "by" if len(better) == 1 else "by up to"
    best = f" ({by} {_points(atlas, situation, better[0])}, `{better[0].group}`)" if better else ""
    return f"{_are(len(better), 'loss')}{best}"


def no_loss_for_all(atlases: Atlases) -> str | None:
    """No loss is better than cross_entropy in all situations."""
    atlas = atlases["classification"]
    names = [each.name for each in atlas.situations]
    if len(names) < len(atlas.task.situations):
        return None
    better = {name: {row.group for row in atlas.with_verdict(name, BETTER)} for name in names}
    worse = {row.group for name in names for row in atlas.with_verdict(name, WORSE)}
    somewhere = set.union(*better.values())
    if set.intersection(*better.values()) or not somewhere & worse:
        return None
    return (
        f"No loss is better than `cross_entropy` in all situations: of {len(somewhere)} that are better in at least "
        f"one, {len(somewhere & worse)} are worse in another."
    )


def long_tail(atlases: Atlases) -> str | None:
    """With a long tail, logit adjustment helps, in training and afterwards."""
    atlas = atlases["classification"]
    trained = atlas.row("long_tail", "logit_adjusted")
    fitted = atlas.row("long_tail", f"{atlas.task.reference} + {_ADJUSTMENT}")
    better = atlas.with_verdict("long_tail", BETTER)
    if trained is None or trained.verdict != BETTER:
        return None
    gain = _points(atlas, "long_tail", trained)
    text = f"With a long tail, {_are(len(better), 'loss')} better than `cross_entropy`; `logit_adjusted` gains {gain}"
    if fitted is not None and fitted.verdict == BETTER:
        gain = _points(atlas, "long_tail", fitted)
        text += f", and adjusting the logits of `cross_entropy` after training gains {gain}"
    return f"{text}."


def learning_rates(atlases: Atlases) -> str | None:
    """The best learning rates of the losses differ by large factors."""
    atlas = atlases["classification"]
    rates = {
        name: [row.relative_rate for row in rows.values() if row.relative_rate] for name, rows in atlas.rows.items()
    }
    if not rates or min(map(span, rates.values())) < 10:
        return None
    some, count = next(iter(rates)), sum(len(each) for each in rates.values())
    far = sum(rate >= 3 or rate <= 1 / 3 for each in rates.values() for rate in each)
    title = next(each.title for each in atlas.situations if each.name == some)
    return (
        f"One learning rate for all losses is unfair: with {title}, the best rates differ by a factor of "
        f"{span(rates[some]):.0f}, and in {far} of {count} cases the best rate is at least three times that of "
        "`cross_entropy`, or at most a third."
    )


def robust_regression(atlases: Atlases) -> str | None:
    """Robust losses of values gain much with outliers, and lose little without."""
    atlas = atlases["regression"]
    if not {"gaussian", "outliers"} <= atlas.rows.keys():
        return None
    better, lost = atlas.with_verdict("outliers", BETTER), atlas.with_verdict("gaussian", WORSE)
    others = atlas.compared("gaussian")
    if len(better) < len(others) / 2 or len(lost) > len(others) / 4:
        return None
    factor = 2 ** (atlas.gain("outliers", better[0].group) or 0.0)
    kept = f"{_are(len(atlas.with_verdict('gaussian', EQUIVALENT)))} equivalent to it"
    return (
        f"With outliers in the targets, {len(better)} of {len(others)} losses have a lower test error than `mse`, the "
        f"best (`{better[0].group}`) by a factor of {factor:.1f}; with Gaussian noise, {kept} and "
        f"{_are(len(lost))} worse."
    )


def unequal_noise(atlases: Atlases) -> str | None:
    """If the variance of the noise differs, gaussian_nll is the best loss."""
    atlas = atlases["regression"]
    better = atlas.with_verdict("heteroscedastic", BETTER)
    if not better or better[0].group != "gaussian_nll":
        return None
    factor = 2 ** (atlas.gain("heteroscedastic", "gaussian_nll") or 0.0)
    return (
        "If the variance of the noise differs between examples, `gaussian_nll`, which predicts it, has the lowest test "
        f"error, by a factor of {factor:.1f} lower than that of `mse`; {_are(len(better) - 1, 'other loss')} better "
        "than `mse`, too."
    )


def real_values(atlases: Atlases) -> str | None:
    """On real data without gross errors, no loss of values is better than mse."""
    atlas = atlases["regression"]
    others = atlas.compared("diabetes")
    if not others or atlas.with_verdict("diabetes", BETTER):
        return None
    return f"On the diabetes data, none of {len(others)} losses is shown to have a lower test error than `mse`."


def _points(atlas: Atlas, situation: str, row: StudyRow) -> str:
    return f"{atlas.gain(situation, row.group) or 0.0:.1f} points"


def _are(count: int, noun: str = "") -> str:
    """Return "3 losses are", "1 loss is" or "none is"."""
    names = f" {noun if count == 1 else noun + 'es'}" if noun and count else ""
    return f"{count or 'none'}{names} {'are' if count > 1 else 'is'}"


_SENTENCES: tuple[Callable[[Atlases], str | None], ...] = (
    clean_labels, wrong_labels, long_tail, learning_rates, robust_regression, unequal_noise, no_loss_for_all,
    real_values,
)  # fmt: skip
