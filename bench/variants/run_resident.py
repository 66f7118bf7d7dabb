"""The program of a bundle with a resident model: it computes the features and sends them to the resident model.

Arguments: model, its input, bits, radius, input, output. Counts are simulated. It needs the libraries of run_once.py without the runtime.
"""

import csv
import sys

import numpy as np
import onecopy
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

model, input_name, bits, radius, input_path, output_path = sys.argv[1:]
generator = rdFingerprintGenerator.GetMorganGenerator(radius=int(radius), fpSize=int(bits), countSimulation=True)

with open(input_path, newline="") as file:
    smiles = [row[0] for row in list(csv.reader(file))[1:]]
rows = np.zeros((len(smiles), int(bits)), dtype=np.float32)
for row, text in zip(rows, smiles):
    molecule = Chem.MolFromSmiles(text)
    if molecule is not None:
        DataStructs.ConvertToNumpyArray(generator.GetFingerprint(molecule), row)
(values, *_) = onecopy.run(model, {input_name: rows}).values()
with open(output_path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["value"])
    writer.writerows([[value[0]] for value in values])
