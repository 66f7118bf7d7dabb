"""An onnxruntime session on the pages of `onecopy serve`. PYTHONPATH=$(dirname "$(onecopy python)") python3 attach.py"""

import numpy
import onecopy

PHENOL = [256, 257, 264, 856, 857, 932, 1180, 1348, 1349, 1350, 1424]

session = onecopy.attach("logp")
fingerprint = numpy.zeros((1, 2048), dtype="float32")
fingerprint[0, PHENOL] = 1
(logp,) = session.run(["logp"], {"fingerprint": fingerprint})
print(f"{logp[0, 0]:.2f}")
