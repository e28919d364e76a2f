"""A script for Slurm's `sbatch`: starts Ray on the nodes of one job, and a study on it."""

import shlex

from orchestrator.manifests.request import Request, mlflow_file, submit_words

_SETTINGS = '"$home/slurm/mlflow.yaml"'
_FORM = """\
#!/bin/bash
# Trains {what} on nodes of Slurm. Change the lines with "<--", then:
#   sbatch {label}.sbatch        # `squeue` shows its state, {label}-NUMBER.log what it says
# When the time is over the job is queued again, and the study goes on where it was.
#SBATCH --job-name={label}
#SBATCH --output={label}-%j.log --open-mode=append
#SBATCH --nodes={nodes} --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
{gpus}{queue}#SBATCH --time=24:00:00                   # <-- longest time of one job
#SBATCH --requeue --signal=B:USR1@120     # two minutes before its end this script is told
set -euo pipefail

# <-- all nodes see these folders; the job that goes on needs the same home
home={home}
data={data}
# <-- activate the environment in which this product is installed, such as: . ~/venv/bin/activate

port=$((20000 + SLURM_JOB_ID % 10000))     # another job on the same node has other ports
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$home/slurm/$SLURM_JOB_ID.token"
mkdir -p "$home/slurm"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")

stop() {{
  trap - EXIT USR1
  python -m orchestrator down --home "$home" >/dev/null || true  # MLflow, if this job started it
  rm -f "$RAY_AUTH_TOKEN_PATH"
}}
trap stop EXIT
go_on() {{
  echo "the time is over: queued again"
  scontrol requeue "$SLURM_JOB_ID"
}}
trap go_on USR1

# one process of Ray on each node, until the job ends; this script runs on the first node
start_ray() {{
  local node=$1
  shift
  srun --ntasks=1 --nodes=1 --nodelist="$node" --overlap --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    python -m ray.scripts.scripts start --block --disable-usage-stats \
    --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="/tmp/ray-$SLURM_JOB_ID-$node" "$@" \
    >"$home/slurm/$SLURM_JOB_ID-$node.log" 2>&1 &
}}
head=$(hostname --ip-address | awk '{{print $1}}')
start_ray "$SLURMD_NODENAME" --head --node-ip-address="$head" --port="$port" \
  --dashboard-port="$((port + 10000))"
for _ in $(seq 120); do
  python -m ray.scripts.scripts health-check --address "$head:$port" 2>/dev/null && break
  sleep 1
done
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -vx "$SLURMD_NODENAME"); do
  start_ray "$node" --address="$head:$port"
done

{mlflow}python -m orchestrator {submit} --home "$home" --data "$data" \
  --address "http://127.0.0.1:$((port + 10000))"{option} &
study=$!
status=0
wait "$study" || status=$?
exit "$status"
"""


def script(request: Request) -> str:
    """Return the script. Without a study it trains the built-in study `digits`."""
    study = request.study or "digits"
    server = mlflow_file(request.mlflow) if request.mlflow else ""
    return _FORM.format(
        what=f"the study {request.name}" if request.study else "the study digits",
        label=request.label,
        nodes=request.workers,
        cpus=request.cpus,
        gpus=_option(f"--gpus-per-node={request.gpus}", "<-- GPUs of a node") * (request.gpus > 0),
        queue=_option(f"--partition={request.queue}", "") if request.queue else "",
        home=shlex.quote(request.home),
        data=shlex.quote(request.data),
        submit=submit_words(request, study),
        mlflow=f"printf '%s' {shlex.quote(server)} >{_SETTINGS}\n" if server else "",
        option=f" --mlflow {_SETTINGS}" if server else "",
    )


def _option(option: str, remark: str) -> str:
    return f"#SBATCH {option}".ljust(42) * bool(remark) + (
        f"# {remark}\n" if remark else f"#SBATCH {option}\n"
    )
