"""Overrides that Hydra's grammar refuses: text is quoted for it, and its errors are replaced by one line."""

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF
from losslab.errors import LabError
from losslab.io import conf_groups

_TEXTS = ("name", "run_dir", "ckpt_path", "teacher", "data.dir")
"""Keys whose values are text, and are taken as typed."""
_KEY = re.compile(r"(\+\+?|~)?[\w./@:$-]+")


def quote_texts(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with quotes around names and paths that Hydra would refuse or read as numbers.

    Raises:
        LabError: an argument has no key.
    """
    parser, result = OverridesParser.create(), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key.strip():
            raise LabError(f"{argument} has no key: type KEY=VALUE, such as optimizer.lr=0.1")
        if equals and key.lstrip("+") in _TEXTS and value[:1] not in {"'", '"', "[", "{"}:
            argument = _quoted_text(parser, argument)  # noqa: PLW2901
        result.append(argument)
    return result


def _quoted_text(parser: OverridesParser, argument: str) -> str:
    value = argument.partition("=")[2]
    try:
        override = parser.parse_override(argument)
        read = value if override.is_sweep_override() else override.value()
        as_typed = read is None or (isinstance(read, str) and (value == value.strip() or not value.strip()))
    except HydraException:
        as_typed = "," in value  # a sweep, or a text with a comma: the error says how to type each
    return argument if as_typed else _quote(argument) or argument


def _quote(argument: str) -> str | None:
    """Return the argument with a value in quotes that Hydra reads as typed; None if there are no such quotes."""
    key, _, value = argument.partition("=")
    parser = OverridesParser.create()
    for mark in ('"', "'"):
        escaped = re.sub(rf"(\\*)({mark}|$)", lambda match: match[1] * 2 + (match[2] and f"\\{match[2]}"), value)
        for text in (value, escaped):
            candidate = f"{key}={mark}{text}{mark}"
            try:
                if parser.parse_override(candidate).value() == value:
                    return candidate
            except HydraException:
                continue
    return None


def _quote_each(argument: str) -> str | None:
    """Return a list or a sweep with quotes around each of its values; None if Hydra refuses this too."""
    key, _, value = argument.partition("=")
    is_list = value.startswith("[") and value.endswith("]")
    quoted = [_quote(f"{key}={each.strip()}") for each in (value[1:-1] if is_list else value).split(",")]
    if None in quoted or not (is_list or len(quoted) > 1):
        return None
    values = ",".join(str(each).partition("=")[2] for each in quoted)
    candidate = f"{key}=[{values}]" if is_list else f"{key}={values}"
    try:
        OverridesParser.create().parse_override(candidate)
    except HydraException:
        return None
    return candidate


def explain(error: Exception) -> str:
    """Return in one line Hydra's message about a command line that it cannot compose."""
    message, cause = str(error), error.__cause__
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error.override)
    for pattern, explanation in _EXPLANATIONS:
        match = re.search(pattern, message, re.DOTALL)
        if match:
            line = explanation.format(*match.groups()) if isinstance(explanation, str) else explanation(*match.groups())
            if line:
                return line
    if isinstance(cause, OmegaConfBaseException):
        message += f" ({str(cause).splitlines()[0]})"
    return " ".join(message.partition("Config search path:")[0].split())


def _explain_list(argument: str) -> str:
    key, _, value = argument.partition("=")
    text = _quote(argument)
    quotes = f"; for a text with a comma type {shlex.quote(text)}" if text else ""
    return f"{argument}: add -m to train with each of these values; for a list type '{key}=[{value}]'{quotes}"


def _explain_choice(group: str, choice: str, listed: str) -> str:
    options = [option for option in listed.partition("Config search path:")[0].split() if option]
    alike = get_close_matches(choice, options, 1, 0.75)
    if alike and choice not in {"none", "no", "off"}:
        return f"there is no {group}={choice}: did you mean {group}={alike[0]}?"
    none = f"; ~{group} leaves it out" if group in conf_groups.UNSET else ""
    return f"there is no {group}={choice}. Available options in '{group}': {', '.join(options)}{none}"


def _explain_syntax(argument: str) -> str:
    key, equals, _ = argument.partition("=")
    if not equals or not _KEY.fullmatch(key):
        if Path(argument).is_dir():
            return f"{argument} is not KEY=VALUE: type resume={argument} to resume a run or complete a sweep"
        more = f", such as {argument}=VALUE" if _KEY.fullmatch(argument) else ""
        return f"{argument} is not GROUP=CHOICE or KEY=VALUE{more}"
    quoted = [each for each in (_quote_each(argument), _quote(argument)) if each]
    if not quoted:
        return f"{argument}: Hydra cannot read this value, and no quotes help: choose another"
    meanings = ("the values", "one text") if len(quoted) > 1 else ("",)
    typed = " or ".join(
        f"{shlex.quote(each)} {f'({what})' if what else ''}".strip()
        for each, what in zip(quoted, meanings, strict=True)
    )
    return f"{argument}: Hydra reads some characters of this value as syntax; with quotes it is text: type {typed}"


def _explain_key(key: str) -> str:
    """Explain that a key does not exist, with the key that was probably meant."""
    group, _, rest = key.partition(".")
    typed = [each for each in sys.argv[1:] if not each.startswith("-")]
    override = next((each for each in typed if each.lstrip("+~").partition("=")[0] == key), f"{key}=VALUE")
    if rest and group in conf_groups.UNSET:
        return conf_groups.unset_group_message(group, rest)
    config = _compose([each for each in typed if each != override]) or _compose([])
    settings = conf_groups.flatten(config)
    known = [*dict.fromkeys([*settings, *(each.partition(".")[0] for each in settings), *config])]
    removes = override.startswith("~")
    if removes and key in settings:
        return f"{key} is null, and Hydra leaves out only keys with a value: type {key}=0 ~{key}"
    alike = _most_alike(key, [each for each in known if "._" not in each])
    equals_value = f"={override.partition('=')[2]}" if "=" in override else ""
    if alike is not None:
        return f"there is no {key}: did you mean {'~' * removes}{alike}{equals_value}?"
    if removes:
        return f"there is no {key}: there is nothing to leave out with ~"
    if not rest:
        return f"there is no {key}: put your own keys under notes, as in +notes.{key}{equals_value}"
    parent = key.rpartition(".")[0]
    below = [each.removeprefix(f"{parent}.") for each in settings if each.startswith(f"{parent}.") and "._" not in each]
    there = f"{parent} has {', '.join(below)}" if below else f"{parent} has no settings"
    return f"there is no {key} ({there}): to pass another argument, type +{key}{equals_value}"


def _most_alike(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that was probably meant: one that ends in the key, is spelt alike, or has an alike end."""
    known = [each for each in known if not key.startswith(f"{each}.")]
    ends = sorted((each for each in known if each.endswith(f".{key}")), key=len)
    parent, _, last = key.rpartition(".")
    siblings = {each.rpartition(".")[2]: each for each in known if each.rpartition(".")[0] == parent}
    found = [
        *ends,
        *map(siblings.get, get_close_matches(last, siblings, 1, 0.7)),
        *get_close_matches(key, () if siblings else known, 1, 0.8),
    ]
    if not found and not parent:
        by_end = {each.rpartition(".")[2]: each for each in known}
        found = [by_end[end] for end in get_close_matches(last, by_end, 1, 0.7)]
    return found[0] if found else None


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the composed configuration, unresolved; empty if Hydra cannot compose it."""
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("train", list(overrides))
        return dict(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 -- another override is wrong too
        return {}


_EXPLANATIONS: tuple[tuple[str, str | Callable[..., str]], ...] = (
    (r"^Ambiguous value for argument '(.*?)'\n", _explain_list),
    (r"^Sweep parameters '(.*?)' requires", "{0}: add -m to train with each of these values"),
    (r"^Multiple values for (\S+)\. .* use 'override \S+ (\S+)'", "{0} is chosen already: type {0}={1}, without +"),
    (r"^Could not append to config\. An item is already at '(.*?)'", "{0} exists already: set it without +"),
    (r"^Could not delete '(\S+?)=(\S+)'\. No match", "{0}={1} is not chosen: ~{0} leaves out what is"),
    (r"Could not find '(\S+)/([^/']*)'\n+Available options in \S+(.*)", _explain_choice),
    (r"^Could not (?:override|delete from config\.) '(.*?)'", _explain_key),
)
"""The beginnings of Hydra's messages, and the lines that replace them."""
