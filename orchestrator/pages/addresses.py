"""Build the addresses of MLflow's pages."""

from urllib.parse import quote, urlencode

from orchestrator.pages.view import own_runs

_TRAINING = {"workflowType": "machine_learning", "compareRunsMode": "CHART"}


def answer_address(uri: str, experiment: str, submission: str, view: str) -> str:
    """Return the address that opens on the answer of a submission. submission: id of its MLflow
    run; view: key of its view; where it has none, the page lists its Runs, with MLflow's charts."""
    shown = {"viewStateShareKey": view} if view else {"searchFilter": own_runs(submission)}
    query = urlencode(_TRAINING | shown, quote_via=quote)
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?{query}"


def list_address(uri: str, experiment: str, query: str) -> str:
    """Return the address of the list of an experiment's runs that a search filter finds."""
    shown = urlencode({"workflowType": "machine_learning", "searchFilter": query}, quote_via=quote)
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?{shown}"


def run_address(uri: str, experiment: str, run_id: str) -> str:
    """Return the address of the page of one run."""
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
