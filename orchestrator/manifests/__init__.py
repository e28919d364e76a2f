"""Files with which clusters are made: a Dockerfile, a Slurm script, YAML for Ray and KubeRay."""
