"""Every tag, kind and metric name that is written into MLflow, once each, with its meaning.

In MLflow a tag's name is `orchestrator.` plus the name given here. Runs written by earlier versions
carry other names: `current_names` translates them when they are read.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from orchestrator.storage.home import LOCAL

PREFIX = "orchestrator."
PARENT_RUN = "mlflow.parentRunId"  # MLflow's own tags
EXPERIMENT_KIND = "mlflow.experimentKind"


class Kind(StrEnum):
    """Names what an MLflow run stands for: the values of the tag `kind`."""

    OPENING = "opening"  # a submission whose plan is not stored yet
    SUBMISSION = "submission"  # one submitted study; its Runs and searches are its children
    RUN = "run"  # a Run that this submission trained
    REUSED = "reused"  # a Run that another submission trained; its figures are copied
    SEARCH = "search"  # a search; its trials are its children
    TRIAL = "trial"  # a Run that a search made


class Tag(StrEnum):
    """Names of our tags, without the prefix."""

    # of everything
    KIND = "kind"  # a `Kind`
    STUDY = "study"  # the study's name
    REASON = "reason"  # why it failed, was stopped or waits; empty when all is well
    GIT_COMMIT = "git_commit"  # of the checkout that submitted; absent outside a repository
    # of a submission
    JOB = "job"  # id of the Ray job that works on it
    JOB_PAGE = "job_page"  # address of that job in Ray's dashboard
    CLUSTER = "cluster"  # address of the cluster, or LOCAL
    HOME = "home"  # name of the home whose store and locks it uses
    SUBMITTER = "submitter"  # name of the home whose command sent it, which may be another machine
    PLAN = "plan"  # digest of what was asked for: a submission with the same one goes on
    PLAN_VERSION = "plan_version"  # digest of plan.json as it is now: a change means read it again
    DATA_REMARKS = (
        "data_remarks"  # of its data sets and stages: warnings, what was passed over; see data.json
    )
    HEARTBEAT = "heartbeat"  # Unix time (s) at which its driver was alive, by the driver's clock
    NEWS = "news"  # the last events that its driver has told, a line of JSON each
    WAITS = "waits"  # what it waits for on the cluster; empty when it does not
    AT_ONCE = "at_once"  # how many of its Runs the cluster holds at once
    MACHINES = "machines"  # of the cluster: how many, their CPUs and GPUs, the model of the CPU
    VERSIONS = "versions"  # of this product, Python, Ray and MLflow, as its driver has them
    REPORT = "report_digest"  # digest of what report.html was made from
    COMPARISON = "comparison_digest"  # digest of answer.json, which names what it was made from
    VIEW = "view"  # key of the shared view of MLflow's page that opens on its answer
    FINISHED = "finished_digest"  # digest of finished.json, once every Run has finished
    # of a search
    SEARCH_KEY = "search_key"  # the search's key in the store
    REQUEST = "request"  # digest of the key and the number of trials
    # of a Run and a trial
    STAGE = "stage"
    LABEL = "label"  # stage plus grid values
    SEED = "seed"
    RUN_KEY = "run_key"  # the Run's key in the store
    FIRST_KEY = "first_key"  # of a trial of a population, whose key changes: its key at first
    STARTS_FROM = "starts_from"  # label of the Run whose encoder it starts from, or what else
    PARENT_KEYS = "parent_keys"  # key of the Run that it starts from, or `none`
    ATTEMPT = "attempt"  # number of the newest attempt, from 1
    TRAINABLE = "trainable"
    DATASET = "dataset"  # fingerprint of the data set
    CODE_VERSION = "code_version"
    REUSED_FROM = "reused_from"  # MLflow run id of the Run whose training is used again
    DESCRIBED = "described"  # `true` once parameters and config.yaml are logged
    PROGRESS = "progress"  # JSON: how far the running epoch, or the search, is
    OUTCOME = "outcome"  # of a trial that ended well: `finished` or `stopped_early`
    LINEAGE = "lineage"  # of a trial of a population: whose weights it went on with, and when
    BEST_EPOCH = "best_epoch"
    EPOCHS = "epochs"  # how many the Run has behind it
    SECONDS = "seconds"  # how long it trained and was tested, over all its attempts
    PLOTS = "plots"  # where its curves are, once they are logged
    PREDICTIONS = "predictions"  # where what was predicted of each test image is
    TEST_IMAGES = "test_images"  # how many test images that is of
    FIGURES = "figures"  # where t-SNE, masks and diagram are, or `none: <reason>`
    ARTIFACTS = "artifacts"  # where a producer's files are, once they are logged
    MODEL_BEST = "model_best"  # `models:/...` of a checkpoint, or `damaged`
    MODEL_LAST = "model_last"
    # facts that a Run reports of itself
    WEIGHT_TRANSFER = "weight_transfer"  # how many tensors came from which Run and epoch
    PRECISION = "precision"  # number format and memory format
    RESUMED_WITH = "resumed_with"  # what changed when it went on: precision, device, torch, workers
    WARNING = "warning"  # what the Run warns of, such as a collapse
    IMAGES = "images"  # how many images a producer has worked through
    ABSENT = "absent"  # classes that no test image has
    ONE_CLASS = "one_class"  # the class that is predicted for all of the test, if it is one alone
    DEVICE = "device"  # name of the GPU, or `cpu`
    WORKERS = "workers"  # how many processes trained
    THREADS = "threads"  # of each process
    TORCH = "torch"  # version
    # of a logged model
    EPOCH = "epoch"
    METRIC = "metric"  # the metric that chose the checkpoint, and its value
    ADDRESS = "address"  # the checkpoint's folder in the store
    SHA256 = "sha256"  # of the weights


# Names that earlier versions wrote → names of today, for tags and for the facts of result and
# progress files. Values of tags (kinds, states, outcomes) have never changed.
RENAMED = {
    "hand_off": Tag.WEIGHT_TRANSFER,
    "numerics": Tag.PRECISION,
    "ancestry": Tag.LINEAGE,
    "opened": Tag.DESCRIBED,
    "maps": Tag.FIGURES,
    "asked": Tag.REQUEST,
    "comparison": Tag.COMPARISON,
    "finished": Tag.FINISHED,
}


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return tags or facts under the names of today; where both names are there, the new counts."""
    translated = {str(RENAMED[name]): v for name, v in values.items() if name in RENAMED}
    return translated | {name: v for name, v in values.items() if name not in RENAMED}


def from_mlflow(tags: Mapping[str, str]) -> dict[str, str]:
    """Return our tags among those of an MLflow run, without the prefix, under today's names."""
    ours = {k.removeprefix(PREFIX): v for k, v in tags.items() if k.startswith(PREFIX)}
    return current_names(ours)


def to_mlflow(tags: Mapping[str, str]) -> dict[str, str]:
    """Return our tags as they are written into MLflow, with the prefix."""
    return {f"{PREFIX}{name}": str(value) for name, value in tags.items()}


def source_tags(tags: Mapping[str, str], user: str) -> dict[str, str]:
    """Return the tags of MLflow's own columns Source, Version and User. tags: ours, of a new
    run."""
    known = {"mlflow.user": user}
    if Tag.STUDY in tags:
        known |= {"mlflow.source.name": f"study {tags[Tag.STUDY]}", "mlflow.source.type": "PROJECT"}
    if commit := tags.get(Tag.GIT_COMMIT):
        known["mlflow.source.git.commit"] = commit
    return known


def owner_of(tags: Mapping[str, str], home: str) -> str:
    """Return the name of the home that a submission belongs to. home: the one that asks; it counts
    as the owner where an earlier version has not noted who sent a job to a shared cluster."""
    if Tag.SUBMITTER in tags:
        return tags[Tag.SUBMITTER]
    return tags.get(Tag.HOME, home) if tags.get(Tag.CLUSTER, LOCAL) == LOCAL else home


def identity_of(tags: Mapping[str, str]) -> tuple[str, str]:
    """Return what tells the Runs of one submission apart: the key, and the label, since stages that
    ask for the same Run share its key."""
    return tags.get(Tag.FIRST_KEY) or tags.get(Tag.RUN_KEY, ""), tags.get(Tag.LABEL, "")


# --- metrics -----------------------------------------------------------------------------------
# What a Run reports of its epochs is registered in `trainables.metrics`, and is written into MLflow
# under the same names, step = epoch.


def importance_metric(parameter: str) -> str:
    """Name the metric of a search that holds the share of its metric's variance that a parameter
    explains, in [0, 1]."""
    return f"importance/{parameter}"


def best_metric(metric: str) -> str:
    """Name the metric of a search that holds the best value of its own metric over all trials."""
    return f"best/{metric}"
