"""The program of a bundle with a resident model: it computes the features and sends them to the resident model.

Arguments: model, its input, bits, radius, input, output.
"""

import sys

import onecopy
from fingerprints import read_fingerprints, write_values

model, input_name, bits, radius, input_path, output_path = sys.argv[1:]
rows = read_fingerprints(input_path, bits, radius)
(values, *_) = onecopy.run(model, {input_name: rows}).values()
write_values(output_path, values)
