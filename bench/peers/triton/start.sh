#!/bin/sh
# Triton with one instance of the model per worker, all in its one process. start.sh REPOSITORY MODEL PORT WORKERS SCRATCH
set -eu
repository=$1 model=$2 port=$3 workers=$4 scratch=$5
mkdir -p "$scratch/$model"
ln -s "$repository/$model/1" "$scratch/$model/1"
cat > "$scratch/$model/config.pbtxt" <<CONFIG
backend: "onnxruntime"
instance_group [{ count: $workers, kind: KIND_CPU }]
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
CONFIG
exec tritonserver --model-repository "$scratch" --http-address 127.0.0.1 --http-port "$port" \
  --allow-grpc=false --allow-metrics=false --log-verbose=0
