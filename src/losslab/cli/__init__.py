"""The console command `losslab VERB`: one module a verb, each with a function of its name.

main       finds the verb and runs it
process    start and end of a command: errors in one line, exit codes
options    options that several verbs share
report     the header and the closing table of a training run
"""
