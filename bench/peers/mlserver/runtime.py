"""A custom runtime for MLServer: ONNX Runtime, one session in each of its inference workers."""

import os

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        # One thread per worker and as many workers as cores, as all others here.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = os.environ["BENCH_MODEL_PATH"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        asked = payload.outputs or self.session.get_outputs()
        names = [output.name for output in asked]
        results = self.session.run(names, feeds)
        outputs = [NumpyCodec.encode_output(name, values) for name, values in zip(names, results)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
