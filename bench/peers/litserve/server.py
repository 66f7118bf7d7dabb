"""LitServe in front of ONNX Runtime: as many workers on the CPU device as the others have, a session in each.

usage: server.py --model NAME --path FILE --port N --workers N
"""

import argparse

import litserve as ls
import numpy as np
import onnxruntime as ort

TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
DATATYPES = {np.dtype(dtype): name for name, dtype in TYPES.items()}


class InferAPI(ls.LitAPI):
    def __init__(self, model, path):
        super().__init__(api_path=f"/v2/models/{model}/infer")
        self.model_name = model
        self.model_path = path

    def setup(self, device):
        options = ort.SessionOptions()
        # One thread per worker and as many workers as cores, as all others here.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(self.model_path, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        feeds = {
            tensor["name"]: np.array(tensor["data"], dtype=TYPES[tensor["datatype"]]).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }
        asked = request.get("outputs") or [{"name": output.name} for output in self.session.get_outputs()]
        return feeds, [output["name"] for output in asked]

    def predict(self, request):
        feeds, names = request
        return list(zip(names, self.session.run(names, feeds)))

    def encode_response(self, results):
        outputs = [
            {
                "name": name,
                "datatype": DATATYPES[values.dtype],
                "shape": list(values.shape),
                "data": values.ravel().tolist(),
            }
            for name, values in results
        ]
        return {"model_name": self.model_name, "model_version": "1", "outputs": outputs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("model", "path", "port", "workers"):
        parser.add_argument(f"--{option}", required=True)
    arguments = parser.parse_args()
    server = ls.LitServer(
        InferAPI(arguments.model, arguments.path),
        accelerator="cpu",
        workers_per_device=int(arguments.workers),
        healthcheck_path="/v2/health/ready",
    )
    # One process reads requests by default: as many as there are workers, as uvicorn's others have.
    server.run(
        host="127.0.0.1",
        port=int(arguments.port),
        num_api_servers=int(arguments.workers),
        generate_client_file=False,
        log_level="warning",
    )
