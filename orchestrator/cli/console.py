"""What several commands print: messages on standard error, and where the services are."""

from rich.console import Console

from orchestrator.execution.services import Services

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)


def show_services(services: Services, out: Console) -> None:
    """Print the addresses of MLflow and of the Ray dashboard."""
    ray = services.ray
    out.print(f"\nMLflow         {services.mlflow_uri or 'not running'}")
    out.print(f"Ray dashboard  {ray.dashboard_url if ray else 'not running'}")
    if ray and ray.token_path:
        out.print(f"               log in with the content of {ray.token_path}\n")
