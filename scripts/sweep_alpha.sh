#!/usr/bin/env bash
# Sweep alpha of gdl-boundary on one data set: a run a value, strategy and seed, then one table and its curves.
#
#   scripts/sweep_alpha.sh DATASET "0.001 0.01 0.1 1"
#   STRATEGIES="increase rebalance" SEEDS="0 1 2" JOBS=2 NAME=sweep ARGS="--epochs 50" scripts/sweep_alpha.sh isles "0.01 0.1"
#
# Runs that exist are used as they are, killed ones resume. RUNNER=slurm submits those that are missing, and a job after
# them that runs this script again, for the table and its curves. The other variables of the Makefile (RAW, DEVICE, ...) pass through.
set -euo pipefail

fail() { echo "sweep_alpha.sh: error: $1" >&2; exit 2; }

[[ $# -eq 2 ]] || fail "expected a data set and a list of alphas, found $# arguments: sweep_alpha.sh isles \"0.01 0.1\""
dataset=$1
# What make would take for a flag, or run.
[[ $dataset =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] || fail "expected a data set's name, found $dataset"
[[ ${SEEDS-0} =~ ^[0-9[:space:]]+$ ]] || fail "SEEDS: expected whole numbers, found $SEEDS"
[[ ${JOBS-1} =~ ^[0-9]+$ ]] || fail "JOBS: expected a whole number, found $JOBS"
# Up to the end of the text, not of its first line.
read -rd '' -a alphas <<< "$2" || true
read -rd '' -a strategies <<< "${STRATEGIES-increase rebalance}" || true

rows=(gdl)
for alpha in "${alphas[@]}"; do
  [[ $alpha =~ ^[0-9]*\.?[0-9]+$ ]] || fail "expected alphas as decimal numbers, found $alpha"
  rows+=("gdl-boundary-constant-$alpha")
done
for strategy in "${strategies[@]}"; do
  case $strategy in
    rebalance) rows+=(gdl-boundary) ;;
    increase) rows+=(gdl-boundary-increase) ;;
    *) fail "expected strategies increase or rebalance, found $strategy" ;;
  esac
done

cd "$(dirname "$0")/.."
export SEEDS=${SEEDS-0 1 2}
name=${NAME-sweep}

# Whether a run has not ended.
is_missing() {
  local row seed
  for row in "${rows[@]}"; do
    for seed in $SEEDS; do
      [[ -e ${RESULTS-results}/$dataset/$row/seed$seed/metrics.csv ]] || return 0
    done
  done
  return 1
}

if [[ ${RUNNER-local} == slurm ]] && is_missing; then
  # All rows as one table, for one array job. sbatch may have been told not to export the environment.
  again=$(printf '%q ' env "SEEDS=$SEEDS" "STRATEGIES=${strategies[*]}" "NAME=$name" "RESULTS=${RESULTS-results}" \
    "VENV=${VENV-.venv}" scripts/sweep_alpha.sh "$dataset" "${alphas[*]}")
  exec make "$dataset-alpha-sweep" TABLE_alpha-sweep="${rows[*]}" ALPHAS="${alphas[*]}" SLURM_AFTER="$again"
fi
make -j "${JOBS-1}" "${rows[@]/#/$dataset-}" ALPHAS="${alphas[*]}"
python=${VENV-.venv}/bin/python
"$python" eval.py table "${RESULTS-results}/$dataset" --rows "${rows[@]}" --name "$name"
"$python" eval.py curves "${RESULTS-results}/$dataset" --rows "${rows[@]}" --name "$name-curves"
