#!/usr/bin/env bash
# Prints the path of a Python that has torch, from a virtual environment in the folder given, which it
# makes. Fails with the reason where there is no Python or no network.
set -euo pipefail
folder=$1
python="$folder/bin/python"
if ! "$python" -c 'import torch' 2>/dev/null; then
  command -v python3 >/dev/null || { echo "no python3" >&2; exit 1; }
  python3 -m venv "$folder" >&2
  "$python" -m pip install --quiet --retries 0 --timeout 15 torch numpy safetensors \
    --index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple >&2 ||
    "$python" -m pip install --quiet torch numpy safetensors >&2
fi
echo "$python"
