"""Makes one prediction and exits. Arguments: run, attach or load; model name; model path; input name; elements per row."""

import sys

import numpy as np

way, model, path, input_name, elements = sys.argv[1:]
feeds = {input_name: np.zeros((1, int(elements)), dtype=np.float32)}
if way == "run":
    import onecopy

    onecopy.run(model, feeds)
elif way == "attach":
    import onecopy

    onecopy.attach(model).run(None, feeds)
else:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)
