"""BentoML in front of ONNX Runtime: N worker processes of one service, a session in each.

BENCH_MODEL, BENCH_MODEL_PATH and BENCH_WORKERS say what is served; `bentoml serve service:Infer` starts it.
"""

import os

import bentoml
import numpy as np
import onnxruntime as ort

TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
DATATYPES = {np.dtype(dtype): name for name, dtype in TYPES.items()}
MODEL = os.environ["BENCH_MODEL"]


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), metrics={"enabled": False})
class Infer:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        # One thread per worker and as many workers as cores, as all others here.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = os.environ["BENCH_MODEL_PATH"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    # The keys of the protocol's JSON are the parameters.
    @bentoml.api(route=f"/v2/models/{MODEL}/infer")
    def infer(self, inputs: list[dict], outputs: list[dict] = []) -> dict:
        feeds = {
            tensor["name"]: np.array(tensor["data"], dtype=TYPES[tensor["datatype"]]).reshape(tensor["shape"])
            for tensor in inputs
        }
        names = [output["name"] for output in outputs or [{"name": one.name} for one in self.session.get_outputs()]]
        results = self.session.run(names, feeds)
        answered = [
            {
                "name": name,
                "datatype": DATATYPES[values.dtype],
                "shape": list(values.shape),
                "data": values.ravel().tolist(),
            }
            for name, values in zip(names, results)
        ]
        return {"model_name": MODEL, "model_version": "1", "outputs": answered}
