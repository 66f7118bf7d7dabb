#!/usr/bin/python3
"""Train the built-in logP model and export it to ONNX.

Everything it needs is in Debian 12 (bookworm); once installed, no network is used:

    apt-get install python3-torch python3-rdkit python3-onnx rdkit-data libopenblas0-pthread
    /usr/bin/python3 train.py

It takes about 6 minutes on one CPU core, and about 6 GB of memory, and writes, next to
this file, 1/model.onnx, metrics.json and sample-request.json. Run twice on one machine with the same
packages, it writes the same model.

Steps: molecules -> split by scaffold -> fingerprint and target -> train -> measure -> export -> check.
"""
import argparse
import hashlib
import json
import os
import platform
import random
import time
from pathlib import Path

# One thread, so that sums are always made in the same order. OpenBLAS reads this when it is loaded.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnx.numpy_helper
import rdkit
import torch
from rdkit import Chem, RDLogger
from rdkit.Chem import Crippen, rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

BITS = 2048
HIDDEN = (192, 48)
GENERATOR_SEED = 20240501
TORCH_SEED = 7
OPSET = 14
MAX_HEAVY_ATOMS = 60  # of a generated molecule
MAX_MODEL_BYTES = 2_000_000
MAX_EXPORT_ERROR_LOGP = 1e-4

# Cores beyond those that NCI molecules provide: rings common in medicines, and short chains.
CORES = """
c1ccccc1 c1ccncc1 c1cncnc1 c1cnccn1 c1ccnnc1 c1ncncn1 c1cc[nH]c1 c1ccoc1 c1ccsc1 c1c[nH]cn1 c1cn[nH]c1
c1cocn1 c1cscn1 c1ccon1 c1ccsn1 c1nnc[nH]1 c1c[nH]nn1 c1nn[nH]n1 c1nnco1 c1ncon1 c1nncs1 c1ccc2[nH]ccc2c1
c1ccc2occc2c1 c1ccc2sccc2c1 c1ccc2[nH]cnc2c1 c1ccc2[nH]ncc2c1 c1ccc2ocnc2c1 c1ccc2scnc2c1 c1ccc2ncccc2c1
c1ccc2cnccc2c1 c1ccc2ncncc2c1 c1ccc2nccnc2c1 c1ccc2ccccc2c1 c1ccc2c(c1)cccc2 c1ncc2nc[nH]c2n1 c1cnc2[nH]ccc2c1
c1cnc2[nH]ncc2c1 c1ccn2ccnc2c1 c1ccc2c(c1)[nH]c1ccccc12 c1ccc2nc3ccccc3cc2c1 c1ccc2cc3ccccc3cc2c1
c1ccc2c(c1)oc1ccccc12 c1ccc2c(c1)Cc1ccccc1-2 c1ccc2c(c1)Nc1ccccc1S2 c1ccc2c(c1)OCO2 c1ccc2c(c1)CCC2
c1ccc2c(c1)CCCC2 c1ccc2c(c1)CCN2 c1ccc2c(c1)CCNC2 c1ccc2c(c1)OCCO2 O=c1cc[nH]cc1 O=c1cccc[nH]1 O=c1ccoc2ccccc12
O=c1ccc2ccccc2o1 O=c1cc[nH]c(=O)[nH]1 O=C1CCC(=O)N1 O=C1NC(=O)c2ccccc12 O=C1CCCN1 O=C1CCN1 O=C1CCCO1 O=C1NC(=O)CN1
O=C1CSC(=O)N1 O=C1CN=C(c2ccccc2)c2ccccc2N1 O=C1C=CC(=O)C=C1 O=C1c2ccccc2C(=O)c2ccccc12 O=c1[nH]cnc2[nH]cnc12
O=c1[nH]c(=O)c2nc[nH]c2[nH]1 C1CC1 C1CCC1 C1CCCC1 C1CCCCC1 C1CCCCCC1 C1=CCCCC1 C1CO1 C1CN1 C1CCOC1 C1CCNC1 C1CCSC1
C1CCOCC1 C1CCNCC1 C1CCSCC1 C1CNCCN1 C1COCCN1 C1CSCCN1 C1CNCCCN1 C1COCO1 C1CC2CCC1C2 C1CC2CCC1CC2 C1CCC2CCCCC2C1
C1C2CC3CC1CC(C2)C3 C1CC2CCC(C1)N2 C1CCC2C(C1)CCC1C2CCC2CCCC21 O=C1C=C2CCC3C4CCCC4CCC3C2CC1 c1ccc(-c2ccccc2)cc1
c1ccc(-c2ccccn2)cc1 c1ccc(-c2ccn[nH]2)cc1 c1ccc(Cc2ccccc2)cc1 c1ccc(Oc2ccccc2)cc1 c1ccc(Sc2ccccc2)cc1
c1ccc(Nc2ccccc2)cc1 c1ccc(CCc2ccccc2)cc1 c1ccc(C=Cc2ccccc2)cc1 c1ccc(N=Nc2ccccc2)cc1 O=C(c1ccccc1)c1ccccc1
O=C(Nc1ccccc1)c1ccccc1 O=S(=O)(Nc1ccccc1)c1ccccc1 O=S(=O)(c1ccccc1)c1ccccc1 O=C(Nc1ccccc1)Nc1ccccc1
O=C(Oc1ccccc1)c1ccccc1 O=C(NCc1ccccc1)c1ccccc1 c1ccc(CN2CCCCC2)cc1 c1ccc(N2CCNCC2)cc1 c1ccc(Nc2ncccn2)cc1
c1ccc(C2CCCCC2)cc1 C(=Nc1ccccc1)c1ccccc1 c1ccc(P(c2ccccc2)c2ccccc2)cc1 c1ccc(C(c2ccccc2)c2ccccc2)cc1
OC1COCC(O)C1O Nc1ccn(C2CCCO2)c(=O)n1 Nc1ncnc2c1ncn2C1CCCO1 O=C1C2CCCN2C(=O)CN1 O=C1CC2SCCN12
C CC CCC CCCC CCCCCC CCO CCN CCS C=C C#C C=CC=C COC CNC CSC CC(C)C CC(=O)C CC(=O)N CC(=O)O NCC(=O)O NC(=O)N
""".split()

# The first atom is the one that bonds to the core.
SUBSTITUENTS = """
C C C CC CCC C(C)C CCCC C(C)(C)C CCCCC CCCCCC CCCCCCCC CCCCCCCCCCCC C=C CC=C C=C(C)C C#C CC#C C(F)(F)F C(F)F CF
C(Cl)(Cl)Cl CCl CBr CCCl CCBr F F Cl Cl Br I O O O OC OC OCC OCCC OC(C)C OCCCC OC(F)(F)F OC=C OCC(=O)O OCCO OCCN(C)C
OC(=O)C OC(=O)CC OC(=O)N OC(=O)NC OCC#C OP(=O)(O)O OP(=O)(OCC)OCC OS(=O)(=O)C OS(=O)(=O)O ON N N N NC N(C)C N(CC)CC
NCC NCCO NCCN N(CCO)CCO N(CCCl)CCCl NC(=O)C NC(=O)CC NC(=O)N NC(=O)OC NC(=O)OCC NC(=S)N NC(=N)N NS(=O)(=O)C NN NO
NC=O NN=C N=C N=C(N)N N=NC N=C=O N=C=S N=[N+]=[N-] N=O [N+](=O)[O-] [N+](=O)[O-] [N+](C)(C)C [NH3+] [O-] C#N C#N CC#N
SC#N C=O C(=O)C C(=O)CC C(=O)O C(=O)O C(=O)[O-] C(=O)OC C(=O)OCC C(=O)OC(C)(C)C C(=O)N C(=O)NC C(=O)N(C)C C(=O)NN
C(=O)NO C(=O)Cl C(=O)CCl C(=O)CBr C(=S)N C(=N)N C(=N)OC C=NO C(C)=NO C=NN C=NNC(=O)N C=NNC(=S)N C=NN=C CO CCO C(C)O
C(O)CO CC(O)C C(O)C(O)CO CN CCN CCCN CN(C)C CCN(C)C CC(N)C(=O)O C(N)C(=O)O CC(=O)O CCC(=O)O CC(=O)OC CCC(=O)OCC
CC(=O)C CC(=O)N CC(C)C CCC(C)C C=CC(=O)O C=CC(=O)C C=C[N+](=O)[O-] C(C#N)C#N C=C(C#N)C#N COC COCC CCOC COC(=O)C CS CSC
S S SC SC SCC SCCC SCC(=O)O SC(=O)C SC(=S)N(C)C SSC S(=O)C S(=O)(=O)C S(=O)(=O)CC S(=O)(=O)N S(=O)(=O)NC
S(=O)(=O)N(C)C S(=O)(=O)O S(=O)(=O)[O-] S(=O)(=O)Cl S(=O)(=O)F P(=O)(O)O P(=O)(OC)OC P(=O)(OCC)OCC P(C)C P(=S)(OCC)OCC
B(O)O [Si](C)(C)C [Si](C)(C)OC [As](=O)(O)O [Se]C [Sn](C)(C)C [Hg]C [Hg]Cl c1ccccc1 c1ccccc1 c1ccc(F)cc1 c1ccc(Cl)cc1
c1ccc(OC)cc1 c1ccc([N+](=O)[O-])cc1 c1ccncc1 c1cccnc1 c1ccccn1 c1ccco1 c1cccs1 c1cnc[nH]1 c1ccccc1O c1nccs1
Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 Sc1ccccc1 OCc1ccccc1 NCc1ccccc1 C(=O)c1ccccc1 C(=O)Nc1ccccc1 NC(=O)c1ccccc1
S(=O)(=O)c1ccccc1 NS(=O)(=O)c1ccccc1 S(=O)(=O)c1ccc(C)cc1 N=Nc1ccccc1 C=Cc1ccccc1 C=Nc1ccccc1 C=NNc1ccccc1 N=Cc1ccccc1
CCc1ccccc1 C(O)c1ccccc1 OC(=O)c1ccccc1 N1CCCCC1 N1CCOCC1 N1CCNCC1 N1CCN(C)CC1 N1CCCC1 n1ccnc1 n1cccn1 CN1CCCCC1
CN1CCOCC1 C(=O)N1CCCCC1 C1CC1 C1CCCC1 C1CCCCC1 OC1CCCCC1 OC1OC(CO)C(O)C(O)C1O NC1CCCCC1 C1CO1 CC1CO1 N1CC1
N1C(=O)CCC1=O N1C(=O)c2ccccc2C1=O
""".split()

# Both are too common in NCI (22 % each) to be held out or trained on as a whole.
SPLIT_BY_MOLECULE = ("", "c1ccccc1")  # no ring; one benzene ring


def fingerprint_generator():
    """Every option is spelled out, so that a change of RDKit's defaults can't change the input."""
    return rdFingerprintGenerator.GetMorganGenerator(
        radius=1,
        fpSize=BITS,
        countSimulation=True,
        countBounds=[1, 2, 4, 8],
        includeChirality=False,
        useBondTypes=True,
        onlyNonzeroInvariants=False,
        includeRingMembership=True,
    )


def fingerprint(generator, mol):
    """One uint8 row of 2048 zeros and ones."""
    text = generator.GetFingerprint(mol).ToBitString()
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0")


def without_stereo(mol):
    """The canonical SMILES without stereo, and the molecule read back from it."""
    Chem.RemoveStereochemistry(mol)
    smiles = Chem.MolToSmiles(mol)
    return smiles, Chem.MolFromSmiles(smiles)


def part_of(key):
    """60 % train, 15 % validation, 25 % test, decided by a hash: no order and no seed can change it."""
    percent = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    return "train" if percent < 60 else "validation" if percent < 75 else "test"


class Molecules:
    """Distinct molecules with their part, in the order they were added."""

    def __init__(self):
        self.seen = set()
        self.rows = []  # (smiles, mol, scaffold, part)

    def add(self, mol, core=None):
        smiles, mol = without_stereo(mol)
        if mol is None or mol.GetNumAtoms() == 0 or smiles in self.seen:
            return False
        scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol)
        by_molecule = scaffold in SPLIT_BY_MOLECULE
        part = part_of(smiles if by_molecule else scaffold)
        if core is not None:
            if by_molecule and part != "train":
                return False  # near copies of training molecules: they would flatter the numbers
            if not by_molecule and part_of(core) != part:
                return False  # a held-out core stays out of training, even with a ring attached
        self.seen.add(smiles)
        self.rows.append((smiles, mol, scaffold, part))
        return True


def read_nci(path):
    molecules = Molecules()
    for line in path.read_text().splitlines():
        mol = Chem.MolFromSmiles(line.split()[0]) if line.strip() else None
        if mol is not None:
            molecules.add(mol)
    return molecules


def attach(mol, substituent, rng):
    """A copy of mol with one hydrogen replaced by the substituent, or None."""
    places = [a.GetIdx() for a in mol.GetAtoms() if a.GetTotalNumHs() > 0]
    if not places:
        return None
    place = rng.choice(places)
    joined = Chem.RWMol(Chem.CombineMols(mol, substituent))
    dummy = mol.GetNumAtoms()
    joined.AddBond(place, dummy + 1, Chem.BondType.SINGLE)
    joined.RemoveAtom(dummy)
    atom = joined.GetAtomWithIdx(place)
    # An H written in brackets ([nH], [NH3+]) is counted by hand; the others follow from the valence.
    if atom.GetNumExplicitHs() > 0:
        atom.SetNumExplicitHs(atom.GetNumExplicitHs() - 1)
    try:
        Chem.SanitizeMol(joined)
    except Chem.MolSanitizeException:
        return None
    return joined


def generate(nci, count):
    """Scaffolds x substituents: a random core with 0 to 6 substituents, which may carry further ones."""
    rng = random.Random(GENERATOR_SEED)
    cores = {}
    for smiles in CORES + [scaffold for _, _, scaffold, _ in nci.rows if scaffold]:
        mol = Chem.MolFromSmiles(smiles)
        if mol is not None and mol.GetNumHeavyAtoms() <= 30:
            smiles, mol = without_stereo(mol)
            cores[smiles] = mol
    cores = list(cores.items())
    substituents = [Chem.MolFromSmiles("*" + s) for s in SUBSTITUENTS]  # the dummy atom is 0, the first is 1
    molecules = Molecules()
    molecules.seen.update(nci.seen)
    while len(molecules.rows) < count:
        core, mol = rng.choice(cores)
        for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6))):
            mol = attach(mol, rng.choice(substituents), rng) or mol
        if mol.GetNumHeavyAtoms() <= MAX_HEAVY_ATOMS:
            scaffold = MurckoScaffold.MurckoScaffoldSmiles(smiles=core)
            molecules.add(Chem.Mol(mol), core=scaffold)
    return molecules


def table(molecules):
    """x: fingerprints, y: Crippen logP, part and by_molecule: how each row was split."""
    generator = fingerprint_generator()
    return {
        "smiles": [smiles for smiles, _, _, _ in molecules.rows],
        "x": np.stack([fingerprint(generator, mol) for _, mol, _, _ in molecules.rows]),
        "y": np.array([Crippen.MolLogP(mol) for _, mol, _, _ in molecules.rows], dtype=np.float32),
        "part": np.array([part for _, _, _, part in molecules.rows]),
        "by_molecule": np.array([scaffold in SPLIT_BY_MOLECULE for _, _, scaffold, _ in molecules.rows]),
        "scaffold": np.array([scaffold for _, _, scaffold, _ in molecules.rows]),
    }


def network(dropout):
    return torch.nn.Sequential(
        torch.nn.Linear(BITS, HIDDEN[0]),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(HIDDEN[0], HIDDEN[1]),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN[1], 1),
    )


def train(x, y, watch, options):
    """Fixed number of epochs, no early stop. The target is standardised for training only."""
    torch.manual_seed(TORCH_SEED)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    mean, std = float(y.mean()), float(y.std())
    model = network(options.dropout)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * (len(x) // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=steps, pct_start=0.1)
    loss_function = torch.nn.SmoothL1Loss(beta=0.5)
    for epoch in range(options.epochs):
        model.train()
        order = torch.randperm(len(x))
        total = 0.0
        for batch in range(len(x) // options.batch_size):
            rows = order[batch * options.batch_size : (batch + 1) * options.batch_size]
            loss = loss_function(model(x[rows].float())[:, 0], (y[rows] - mean) / std)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 5 == 4 or epoch == options.epochs - 1:
            error = predict(model, watch[0]) * std + mean - watch[1]
            rmse = float(np.sqrt(np.mean(error**2)))
            print(f"epoch {epoch + 1}: loss {total / (len(x) // options.batch_size):.4f}, validation RMSE {rmse:.3f}", flush=True)
    # Fold the standardisation into the last layer, so that the graph answers plain logP.
    with torch.no_grad():
        model[-1].weight.mul_(std)
        model[-1].bias.mul_(std).add_(mean)
    return model


def predict(model, x):
    model.eval()
    with torch.no_grad():
        rows = [model(torch.from_numpy(x[i : i + 4096]).float())[:, 0] for i in range(0, len(x), 4096)]
    return torch.cat(rows).numpy()


def quality(predicted, exact):
    error = (predicted - exact).astype(np.float64)
    spread = np.sum((exact - exact.mean(dtype=np.float64)) ** 2, dtype=np.float64)
    return {
        "molecules": len(exact),
        "r2": round(float(1 - np.sum(error**2) / spread), 4),
        "mae": round(float(np.mean(np.abs(error))), 4),
        "rmse": round(float(np.sqrt(np.mean(error**2))), 4),
        "median_absolute_error": round(float(np.median(np.abs(error))), 4),
        "within_0.5": round(float(np.mean(np.abs(error) <= 0.5)), 4),
        "exact_logp_std": round(float(exact.std(dtype=np.float64)), 4),
    }


def export(model, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model.eval(),
        torch.zeros(1, BITS),
        str(path),
        opset_version=OPSET,
        input_names=["fingerprint"],
        output_names=["logp"],
        dynamic_axes={"fingerprint": {0: "batch"}, "logp": {0: "batch"}},
    )


def run_exported(path, x):
    """Run the file without PyTorch: with onnx's evaluator where there is one (onnx >= 1.13), else NumPy."""
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    try:
        from onnx.reference import ReferenceEvaluator

        return "onnx.reference", ReferenceEvaluator(model).run(None, {"fingerprint": x})[0]
    except ImportError:
        pass
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    values["fingerprint"] = x
    for node in model.graph.node:
        args = [values[name] for name in node.input]
        if node.op_type == "Gemm":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if attributes != {"alpha": 1.0, "beta": 1.0, "transB": 1}:
                raise SystemExit(f"unexpected Gemm attributes: {attributes}")
            values[node.output[0]] = args[0] @ args[1].T + args[2]
        elif node.op_type == "Relu":
            values[node.output[0]] = np.maximum(args[0], 0)
        else:
            raise SystemExit(f"unexpected operator {node.op_type}")
    return "numpy", values["logp"]


SAMPLE = {"phenol": "Oc1ccccc1", "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O"}


def write_sample_request(path, x):
    tensor = {"name": "fingerprint", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    body = {"id": "phenol-and-ibuprofen", "inputs": [tensor]}
    path.write_text(json.dumps(body, separators=(",", ":")) + "\n")


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--nci", type=Path, default=Path("/usr/share/RDKit/Data/NCI/first_5K.smi"))
    parser.add_argument("--model", type=Path, default=here / "1" / "model.onnx")
    parser.add_argument("--metrics", type=Path, default=here / "metrics.json")
    parser.add_argument("--sample-request", type=Path, default=here / "sample-request.json")
    # The training options were chosen on the validation part; the test part was not used for any choice.
    parser.add_argument("--generated", type=int, default=150_000, help="generated molecules, all parts together")
    parser.add_argument("--nci-repeats", type=int, default=3, help="times an epoch shows each NCI training molecule")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--dropout", type=float, default=0.2)
    options = parser.parse_args()

    started = time.monotonic()
    RDLogger.DisableLog("rdApp.*")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    nci_molecules = read_nci(options.nci)
    generated = table(generate(nci_molecules, options.generated))
    nci = table(nci_molecules)
    print(f"molecules ready after {time.monotonic() - started:.0f} s", flush=True)

    nci_rows = np.tile(np.flatnonzero(nci["part"] == "train"), options.nci_repeats)
    generated_rows = np.flatnonzero(generated["part"] == "train")
    x = np.concatenate([generated["x"][generated_rows], nci["x"][nci_rows]])
    y = np.concatenate([generated["y"][generated_rows], nci["y"][nci_rows]])
    watch = nci["part"] == "validation"
    model = train(x, y, (nci["x"][watch], nci["y"][watch]), options)
    train_seconds = time.monotonic() - started

    def measure(data, part, by_molecule):
        rows = (data["part"] == part) & np.isin(data["by_molecule"], by_molecule)
        result = quality(predict(model, data["x"][rows]), data["y"][rows])
        return {**result, "scaffolds": len(set(data["scaffold"][rows]))}

    held_out, split_by_molecule = [False], [True]
    measured = {
        "nci_test_held_out_scaffolds": measure(nci, "test", held_out),
        "nci_test_acyclic_and_benzene_split_by_molecule": measure(nci, "test", split_by_molecule),
        "nci_test_all": measure(nci, "test", held_out + split_by_molecule),
        "generated_test_held_out_scaffolds": measure(generated, "test", held_out),
        "nci_validation_all": measure(nci, "validation", held_out + split_by_molecule),
        "nci_train_all": measure(nci, "train", held_out + split_by_molecule),
        "generated_train_all": measure(generated, "train", held_out + split_by_molecule),
    }

    export(model, options.model)
    model_bytes = options.model.stat().st_size
    checked_x = nci["x"][nci["part"] == "test"].astype(np.float32)
    evaluator, answer = run_exported(options.model, checked_x)
    export_error = float(np.max(np.abs(answer[:, 0] - predict(model, checked_x))))
    if answer.shape != (len(checked_x), 1) or export_error > MAX_EXPORT_ERROR_LOGP or model_bytes > MAX_MODEL_BYTES:
        raise SystemExit(f"bad export: shape {answer.shape}, error {export_error}, {model_bytes} bytes")

    generator = fingerprint_generator()
    sample_mols = {name: Chem.MolFromSmiles(smiles) for name, smiles in SAMPLE.items()}
    sample_x = np.stack([fingerprint(generator, mol) for mol in sample_mols.values()])
    write_sample_request(options.sample_request, sample_x)
    sample = {}
    for (name, mol), logp in zip(sample_mols.items(), run_exported(options.model, sample_x.astype(np.float32))[1][:, 0]):
        smiles = Chem.MolToSmiles(mol)
        trained_on = any(smiles in d["smiles"] and d["part"][d["smiles"].index(smiles)] == "train" for d in (nci, generated))
        sample[name] = {
            "smiles": SAMPLE[name],
            "logp": round(float(logp), 4),
            "crippen_logp": round(Crippen.MolLogP(mol), 4),
            "in_training_data": trained_on,
        }

    report = {
        "quality": measured,
        "sample": sample,
        "training_rows": {"generated": len(generated_rows), "nci": len(nci_rows) // options.nci_repeats},
        "options": {k: v for k, v in vars(options).items() if not isinstance(v, Path)},
        "seeds": {"generator": GENERATOR_SEED, "torch": TORCH_SEED},
        "export": {"opset": OPSET, "bytes": model_bytes, "evaluator": evaluator, "max_difference_logp": export_error},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "rdkit": rdkit.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        "seconds": {"until_trained": round(train_seconds), "total": round(time.monotonic() - started)},
    }
    options.metrics.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["quality"] | report["sample"], indent=2))


if __name__ == "__main__":
    main()
