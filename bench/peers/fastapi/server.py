"""FastAPI and ONNX Runtime under several uvicorn workers, with the raw weights in multiprocessing.shared_memory.

The parent copies every large initializer into one shared block and writes the graph without them; each worker maps the
block and hands the runtime numpy views of it as external initializers. What the runtime packs for its kernels it still
packs in every worker: that is the limit of this way, and the table shows it. uvloop and httptools as in production: with
asyncio's own loop, uvicorn's shared socket keeps Nagle's algorithm and every answer waits 40 ms.

usage: server.py --repository DIR --model NAME --port N --workers N --scratch DIR
"""

import argparse
import json
import os
import signal
import sys
from multiprocessing import resource_tracker, shared_memory

import numpy as np
import onnx
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response
from onnx import external_data_helper, numpy_helper
from starlette.concurrency import run_in_threadpool

SETTINGS = "BENCH_FASTAPI_SETTINGS"
# Smaller ones stay in the graph: sharing them gains nothing.
SHARED_FROM_BYTES = 4096
ALIGNMENT = 64
TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
DATATYPES = {np.dtype(dtype): name for name, dtype in TYPES.items()}


def share_weights(model_path, scratch):
    """Writes the weights to shared memory and the graph to a file; where both are, as JSON can hold it."""
    model = onnx.load(model_path)
    places, size = [], 0
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes < SHARED_FROM_BYTES:
            continue
        places.append({"name": tensor.name, "dtype": array.dtype.str, "shape": list(array.shape), "offset": size})
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    block = shared_memory.SharedMemory(create=True, size=max(size, 1))
    by_name = {place["name"]: place for place in places}
    for tensor in model.graph.initializer:
        place = by_name.get(tensor.name)
        if place is None:
            continue
        view_of(block, place)[...] = numpy_helper.to_array(tensor)
        external_data_helper.set_external_data(tensor, location="shared.bin")
        tensor.ClearField("raw_data")
    graph_path = os.path.join(scratch, "graph.onnx")
    with open(graph_path, "wb") as file:
        file.write(model.SerializeToString())
    return block, {"block": block.name, "places": places, "graph": graph_path}


def view_of(block, place):
    return np.ndarray(place["shape"], dtype=place["dtype"], buffer=block.buf, offset=place["offset"])


def open_session(settings):
    block = shared_memory.SharedMemory(name=settings["block"])
    # The parent made the block and removes it: a worker that ends must not.
    resource_tracker.unregister(block._name, "shared_memory")
    options = ort.SessionOptions()
    # One thread per worker and as many workers as cores, as all others here.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    values = [ort.OrtValue.ortvalue_from_numpy(view_of(block, place)) for place in settings["places"]]
    options.add_external_initializers([place["name"] for place in settings["places"]], values)
    session = ort.InferenceSession(settings["graph"], options, providers=["CPUExecutionProvider"])
    # The session reads the block for as long as it lives.
    session.kept = (block, values)
    return session


def create_app():
    settings = json.loads(os.environ[SETTINGS])
    session = open_session(settings)
    output_names = [output.name for output in session.get_outputs()]
    app = FastAPI()

    @app.get("/v2/health/ready")
    def ready():
        return {}

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request):
        body = await request.body()
        header = request.headers.get("inference-header-content-length")
        at = len(body) if header is None else int(header)
        asked = json.loads(body[:at])
        feeds = {}
        for tensor in asked["inputs"]:
            dtype = TYPES[tensor["datatype"]]
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                values = np.array(tensor["data"], dtype=dtype)
            else:
                values = np.frombuffer(body, dtype=dtype, count=size // np.dtype(dtype).itemsize, offset=at)
                at += size
            feeds[tensor["name"]] = values.reshape(tensor["shape"])
        outputs = asked.get("outputs") or [{"name": output} for output in output_names]
        wanted = [output["name"] for output in outputs]
        # Off the event loop, so that the worker goes on reading requests.
        results = await run_in_threadpool(session.run, wanted, feeds)
        return answer(name, wanted, results, outputs[0].get("parameters", {}).get("binary_data", False))

    return app


def answer(name, wanted, results, is_binary):
    outputs, raw = [], []
    for output, values in zip(wanted, results):
        described = {"name": output, "datatype": DATATYPES[values.dtype], "shape": list(values.shape)}
        if is_binary:
            raw.append(np.ascontiguousarray(values).tobytes())
            outputs.append({**described, "parameters": {"binary_data_size": len(raw[-1])}})
        else:
            outputs.append({**described, "data": values.ravel().tolist()})
    text = json.dumps({"model_name": name, "model_version": "1", "outputs": outputs}).encode()
    if not is_binary:
        return Response(text, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return Response(b"".join([text, *raw]), media_type="application/octet-stream", headers=headers)


def main():
    parser = argparse.ArgumentParser()
    for option in ("repository", "model", "port", "workers", "scratch"):
        parser.add_argument(f"--{option}", required=True)
    arguments = parser.parse_args()
    path = os.path.join(arguments.repository, arguments.model, "1", "model.onnx")
    # With one worker uvicorn ends itself by the signal that it got: the block must be removed before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    block, settings = share_weights(path, arguments.scratch)
    os.environ[SETTINGS] = json.dumps(settings)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    try:
        uvicorn.run(
            "server:create_app",
            factory=True,
            host="127.0.0.1",
            port=int(arguments.port),
            workers=int(arguments.workers),
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
        )
    finally:
        block.close()
        block.unlink()


if __name__ == "__main__":
    main()
