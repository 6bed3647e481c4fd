#!/usr/bin/env bash
# safetensors 0.8.0, NumPy 2.4.6: an array that is not in C order is saved as another array.
#
# safetensors.numpy.save and save_file write the memory of an array as it lies and its shape as it is seen. Of a
# transposed array, or one in Fortran order, the file then holds the right numbers in the wrong places: no error, no
# warning, and nothing that a reader could notice. (Its side for torch refuses tensors that are not contiguous.)
# Expected: the array that went in, or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from safetensors.numpy import load, load_file, save, save_file

plain = np.arange(6, dtype=np.float32).reshape(2, 3)
fortran = np.asfortranarray(plain)
transposed = np.ascontiguousarray(plain.T).T
assert (plain == fortran).all() and (plain == transposed).all()
save_file({"array": fortran}, "array.safetensors")
again = {
    "C order": load(save({"array": plain}))["array"],
    "Fortran order": load(save({"array": fortran}))["array"],
    "Fortran order, file": load_file("array.safetensors")["array"],
    "transposed": load(save({"array": transposed}))["array"],
}
for name, array in again.items():
    print(f"{name}: {array.tolist()}")
seen = {name: bool((array == plain).all()) for name, array in again.items()}
wanted = {"C order": True, "Fortran order": False, "Fortran order, file": False, "transposed": False}
sys.exit(0 if seen == wanted else 1)
PY
echo "seen: arrays that are not in C order come back as others"
