"""Input and output of a bundle's own program: molecules of a CSV file as fingerprints, values as a CSV file.

RDKit is Debian's python3-rdkit.
"""

import csv

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator


def read_fingerprints(path, bits, radius):
    """Morgan fingerprints with simulated counts, float32 [molecules, bits]; zeros for a text that is not a molecule."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=int(radius), fpSize=int(bits), countSimulation=True)
    with open(path, newline="") as file:
        smiles = [row[0] for row in list(csv.reader(file))[1:]]
    rows = np.zeros((len(smiles), int(bits)), dtype=np.float32)
    for row, text in zip(rows, smiles):
        molecule = Chem.MolFromSmiles(text)
        if molecule is not None:
            DataStructs.ConvertToNumpyArray(generator.GetFingerprint(molecule), row)
    return rows


def write_values(path, values):
    """Writes the first column of [molecules, n] as `value`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["value"])
        writer.writerows([[value[0]] for value in values])
