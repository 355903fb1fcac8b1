"""Prefixes of the data bucket on which the stacks, which grant them, and the command line, which fills them, agree."""

#: Pictures to be labelled by transform jobs.
BATCH_INPUT = "batch/input"
#: What the jobs answer, and the results gathered from that.
BATCH_OUTPUT = "batch/output"
