"""Runs the model that `onecopy serve` keeps. PYTHONPATH=$(dirname "$(onecopy python)") python3 run.py"""

from array import array

import onecopy

PHENOL = [256, 257, 264, 856, 857, 932, 1180, 1348, 1349, 1350, 1424]

fingerprint = array("f", bytes(4 * 2048))
for bit in PHENOL:
    fingerprint[bit] = 1

outputs = onecopy.run("logp", {"fingerprint": onecopy.Tensor(fingerprint, [1, 2048])})
values = outputs["logp"]
# A numpy array where numpy is installed.
number = values.reshape(-1)[0] if hasattr(values, "reshape") else values.data[0]
print(f"{number:.2f}")
