#!/bin/sh
# MLServer reads settings from files beside the model: they are written for this start. start.sh MODEL PATH PORT WORKERS SCRATCH
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
model=$1 path=$2 port=$3 workers=$4 scratch=$5
cat > "$scratch/settings.json" <<JSON
{"host": "127.0.0.1", "http_port": $port, "grpc_port": $((port + 1)), "metrics_endpoint": null, "debug": false, "parallel_workers": $workers}
JSON
cat > "$scratch/model-settings.json" <<JSON
{"name": "$model", "implementation": "runtime.OnnxRuntime"}
JSON
cp "$folder/runtime.py" "$scratch/"
cd "$scratch"
BENCH_MODEL_PATH=$path
export BENCH_MODEL_PATH
exec "$folder/.venv/bin/mlserver" start .
