"""`python -m losslab.cli VERB`, for use where the command `losslab` is not installed."""

from losslab.cli.main import main

main()
