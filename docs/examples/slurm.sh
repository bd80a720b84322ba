#!/usr/bin/env bash
#SBATCH --job-name=selfinstruct
#SBATCH --time=04:00:00
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=selfinstruct-%j.jsonl
# Without "B:" the signal goes to the steps, that is to `srun`, not to this shell.
set -u
srun selfinstruct generate --config run.toml --base-url "$SELFINSTRUCT_SERVER" \
  --max-minutes 230 --log-format json
status=$?
# Stopped early: back into the queue, but not for ever (a stalled run leaves with 3, too).
if [ "$status" -eq 3 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
