"""The image that the hosts of a cluster run: this product and its libraries."""

import sys

from orchestrator.manifests.request import Request

_FORM = """\
# Image of a cluster's hosts. Build it in a clone of this project:
#   python -m orchestrator manifest docker > Dockerfile
#   docker build --tag {image} .
#   docker push {image}
FROM python:{python}-slim
# wget: KubeRay asks with it whether Ray is well. git: `pip` may need it for packages of your own
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends git wget \\
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m pip install --no-cache-dir --constraint /source/constraints.txt /source \\
    && rm -rf /source
# all users may write here: Ray's own files, and caches of libraries
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /tmp
"""


def dockerfile(request: Request) -> str:
    """Return a Dockerfile. Python's version is that of this command: Ray needs the same one
    everywhere."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _FORM.format(image=request.image, python=version)
