"""`python -m losslab.cli VERB`, where the command `losslab` is not installed."""

from losslab.cli.main import main

main()
