"""The program of a bundle, started for each request: it imports its libraries, loads the model, predicts one file and exits.

Arguments: checkpoint, bits, radius, input, output. The runtime is PyPI's onnxruntime.
"""

import sys

import onnxruntime
from fingerprints import read_fingerprints, write_values

checkpoint, bits, radius, input_path, output_path = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(checkpoint, options, providers=["CPUExecutionProvider"])

rows = read_fingerprints(input_path, bits, radius)
(values,) = session.run(None, {session.get_inputs()[0].name: rows})[:1]
write_values(output_path, values)
