"""The database and the artifacts of an MLflow server: what they need is said before it starts."""

import importlib.util
import sys

import pytest

from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.services.mlflow_server import check_artifacts, database_address
from orchestrator.services.record import ServiceError


def test_a_database_of_python_needs_nothing() -> None:
    assert database_address(MlflowSettings()) == "sqlite:///mlflow.db"
    assert database_address(MlflowSettings(backend_store_uri="/lab/mlruns")) == "/lab/mlruns"


def test_secrets_come_from_the_environment_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MlflowSettings(backend_store_uri="sqlite:///${LAB_USER}:${LAB_WORD}@db/mlflow")
    monkeypatch.setenv("LAB_USER", "ann")
    monkeypatch.delenv("LAB_WORD", raising=False)
    with pytest.raises(ServiceError, match="LAB_WORD, which is not set: export it"):
        database_address(settings)
    monkeypatch.setenv("LAB_WORD", "a/b@c")
    assert database_address(settings) == "sqlite:///ann:a%2Fb%40c@db/mlflow"


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    settings = MlflowSettings(backend_store_uri="postgresql+psycopg://ann:secret@db/mlflow")
    with pytest.raises(ServiceError) as raised:
        database_address(settings)
    assert "needs the package psycopg: pip install" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_database_that_does_not_exist_is_named_without_its_password() -> None:
    with pytest.raises(ServiceError, match="no database is called postgers$"):
        database_address(MlflowSettings(backend_store_uri="postgers://ann:secret@db/mlflow"))


def test_artifacts_in_a_bucket_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    check_artifacts(MlflowSettings(artifacts_destination="/lab/artifacts"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServiceError, match="need the package boto3: pip install"):
        check_artifacts(MlflowSettings(artifacts_destination="s3://lab/mlflow"))


def test_a_package_that_no_extra_has_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ServiceError, match="needs the package MySQLdb: install it where"):
        database_address(MlflowSettings(backend_store_uri="mysql://ann:secret@db/mlflow"))
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    with pytest.raises(ServiceError, match="need the package google-cloud-storage: install it"):
        check_artifacts(MlflowSettings(artifacts_destination="gs://lab/mlflow"))
