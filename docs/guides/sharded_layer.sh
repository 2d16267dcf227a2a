#!/bin/bash
# One layer on the workers of this machine: bash sharded_layer.sh TOKENS.npy VALUES.npy OUT.npy [WORKERS]
set -e
workers=${4:-2}
cores=$(getconf _NPROCESSORS_ONLN)
export NUMBA_NUM_THREADS=${NUMBA_NUM_THREADS:-$((cores > workers ? cores / workers : 1))}  # of each worker
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT
"$python" -m dask scheduler --scheduler-file "$folder/scheduler.json" --port 0 --no-dashboard &
for _ in $(seq "$workers"); do
    "$python" -m dask worker --scheduler-file "$folder/scheduler.json" --nthreads 1 --no-dashboard --local-directory "$folder" &
done
"$python" "$here/sharded_layer.py" "$1" "$2" "$3" --scheduler "$folder/scheduler.json" --workers "$workers"
