#!/usr/bin/env bash
# What Slurm starts on a node: a task of the array makes its own TARGET, the job after it runs a COMMAND.
#
#   slurm_task.sh CHECKOUT PYTHON MAKEFLAGS TARGET...     (in an array job)
#   slurm_task.sh CHECKOUT PYTHON MAKEFLAGS COMMAND...
#
# A stop that Slurm announces (time limit, preemption) goes to make; the task is then queued again, and resumes.
set -uo pipefail
LONGEST=100     # restarts: a time limit that is too short for one step would have no end

fail() { echo "slurm_task.sh: error: $(hostname): $1" >&2; exit "$2"; }

checkout=$1 python=$2
export MAKEFLAGS=$3 RUNNER=local
shift 3
unset MAKELEVEL MFLAGS
cd "$checkout" 2> /dev/null || fail "expected the checkout at $checkout, found none on this node" 2
[ -x "$python" ] || fail "expected the environment's $python, found none on this node" 2

job=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID-}" ]; then
  job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  targets=("$@")
  set -- make "${targets[SLURM_ARRAY_TASK_ID]}"
fi

child='' stopped=''
stop() { stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null; }
trap stop TERM
"$@" &
child=$!
[ -z "$stopped" ] || stop   # it came before there was a child
code=0
wait "$child" || code=$?
# A stop ends bash's wait, not the child.
while kill -0 "$child" 2> /dev/null; do code=0; wait "$child" || code=$?; done

if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
  # A job that is cancelled, or that somebody else has requeued, is told to stop as well, but it is no longer running.
  state=$(squeue --noheader --jobs="$job" --format=%T) || state=RUNNING
  [ "$state" = RUNNING ] || exit "$code"
  [ "${SLURM_RESTART_COUNT:-0}" -lt "$LONGEST" ] || fail "stopped $LONGEST times; allow it more time" 1
  echo "slurm_task.sh: stopped; queued again, to resume"
  # Slurm stops what is left of this task at once, scontrol as well.
  scontrol requeue "$job" || [ $? -gt 128 ] || fail "expected that Slurm queues the task again; make the goal again" 1
fi
exit "$code"
