"""Prefixes of the data bucket on which the stacks, which grant them, and the command line, which fills them, agree."""

#: Images to be labelled by transform jobs.
BATCH_INPUT = "batch/input"
#: What the jobs answer, and the results gathered from that.
BATCH_OUTPUT = "batch/output"
#: Requests and answers that an endpoint captures, below its name and its variant's.
CAPTURED = "captured"
#: The data sets, each below a folder of its own.
DATA_SETS = "datasets"
#: What was pushed of each: who may write data sets may write these, too. No data set's name begins with a dot.
DATA_SET_MANIFESTS = f"{DATA_SETS}/.manifests"
#: Training programs.
CODE = "code"
#: What EC2 instances are to train: trainings may read it and not write it, so none can change the next one.
EC2_JOBS = f"{CODE}/jobs"
#: What trainings leave, below a folder named after the job.
TRAINING_OUTPUT = "training"
CHECKPOINTS = "checkpoints"
#: What trainings may start from, put there by people.
WEIGHTS = "weights"
#: Packaged models, below a folder named after the digest of each; no role of the stacks may write there.
MODELS = "models"
#: What a training may read and write.
READABLE_PREFIXES = (DATA_SETS, CODE, WEIGHTS, CHECKPOINTS)
WRITABLE_PREFIXES = (TRAINING_OUTPUT, CHECKPOINTS)
TRAINING_PREFIXES = tuple(sorted({*READABLE_PREFIXES, *WRITABLE_PREFIXES}))
