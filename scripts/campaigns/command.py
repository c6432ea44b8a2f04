"""The command line of a script that runs what a page shows and writes the page anew."""

import argparse
from collections.abc import Sequence
from typing import TypeVar

from campaigns.campaign import Subject

One = TypeVar("One", bound=Subject)


def asked(page: str, everything: Sequence[One], noun: str, cost: str) -> list[One]:
    """What is to be run: all, or what the command line names; nothing with --page.

    Args:
        page: that is written.
        everything: that it shows.
        noun: for one of these.
        cost: of running all of them.
    """
    names = [one.name for one in everything]
    parser = argparse.ArgumentParser(description=f"Run what {page} shows, and write it anew.")
    parser.add_argument("names", nargs="*", metavar=noun.upper(), help=f"{', '.join(names)} (default: all, {cost})")
    parser.add_argument("--page", action="store_true", help="run nothing: rewrite the page from the last runs' numbers")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown or (options.page and options.names):
        parser.error(f"no {noun} {', '.join(unknown)}" if unknown else f"--page runs nothing: name no {noun}s")
    return [] if options.page else [one for one in everything if one.name in (options.names or names)]
