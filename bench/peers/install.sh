#!/bin/sh
# Makes the environments of peers: install.sh NAME ... They stand in bench/peers/NAME/.venv and go with that folder.
set -eu
cd "$(dirname "$0")"
if [ $# -eq 0 ]; then
  echo "usage: install.sh NAME ... (of: $(ls */requirements.txt | cut -d/ -f1 | tr "\n" " "))" >&2
  exit 2
fi
for name in "$@"; do
  [ -f "$name/requirements.txt" ] || { echo "no peer $name with a requirements.txt" >&2; exit 2; }
  "${PYTHON:-python3}" -m venv "$name/.venv"
  "$name/.venv/bin/python" -m pip install --quiet --requirement "$name/requirements.txt"
done
