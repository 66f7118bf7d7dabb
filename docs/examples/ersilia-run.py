"""The code/main.py of an Ersilia bundle: Python featurizes, the resident model predicts. main.py INPUT.csv OUTPUT.csv"""

import csv
import sys

import numpy
import onecopy
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

BITS = 2048
generator = rdFingerprintGenerator.GetMorganGenerator(radius=1, fpSize=BITS, countSimulation=True)


def fingerprint(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
        return None
    row = numpy.zeros(BITS, dtype="float32")
    DataStructs.ConvertToNumpyArray(generator.GetFingerprint(molecule), row)
    return row


input_path, output_path = sys.argv[1:3]
with open(input_path, newline="") as file:
    rows = [fingerprint(line[0]) for line in list(csv.reader(file))[1:]]
known = [row for row in rows if row is not None]
# `onecopy load model/checkpoints/model.onnx --name logp` keeps the model in memory.
values = iter(onecopy.run("logp", {"fingerprint": numpy.stack(known)})["logp"][:, 0] if known else [])
with open(output_path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["logp"])
    writer.writerows([["" if row is None else next(values)] for row in rows])
