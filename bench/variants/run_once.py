"""The program of a bundle, started for each request: it imports its libraries, loads the model, predicts one file and exits.

Arguments: checkpoint, bits, radius, input, output. Counts are simulated. It needs python3-rdkit of Debian and onnxruntime of PyPI.
"""

import csv
import sys

import numpy as np
import onnxruntime
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

checkpoint, bits, radius, input_path, output_path = sys.argv[1:]
generator = rdFingerprintGenerator.GetMorganGenerator(radius=int(radius), fpSize=int(bits), countSimulation=True)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(checkpoint, options, providers=["CPUExecutionProvider"])

with open(input_path, newline="") as file:
    smiles = [row[0] for row in list(csv.reader(file))[1:]]
rows = np.zeros((len(smiles), int(bits)), dtype=np.float32)
for row, text in zip(rows, smiles):
    molecule = Chem.MolFromSmiles(text)
    if molecule is not None:
        DataStructs.ConvertToNumpyArray(generator.GetFingerprint(molecule), row)
(values,) = session.run(None, {session.get_inputs()[0].name: rows})[:1]
with open(output_path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["value"])
    writer.writerows([[value[0]] for value in values])
