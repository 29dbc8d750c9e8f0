"""Loads an exported file into torch.nn.LSTM or torch.nn.GRU and writes what PyTorch computes.

python check.py FILE.safetensors OPTIONS.json OUT.json
"""

import json
import sys

import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load(path):
    """A SafeTensors file; by its own library where that is installed."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        data = bytearray(open(path, "rb").read())
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        tensors = {}
        for name, info in header.items():
            start, end = (8 + length + offset for offset in info["data_offsets"])
            flat = torch.frombuffer(bytearray(data[start:end]), dtype=DTYPES[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
        return tensors
    return load_file(path)


def main():
    path, options, out = sys.argv[1:]
    options = json.load(open(options))
    prefix, module = options.pop("prefix"), options.pop("module")
    x = torch.tensor(options.pop("input")).reshape(options.pop("shape"))
    state = {k.removeprefix(prefix): v.float() for k, v in load(path).items()}
    rnn = getattr(torch.nn, module)(batch_first=True, **options)
    rnn.load_state_dict(state, strict=True)
    with torch.no_grad():
        y, final = rnn(x)
    values = {"output": y}
    values |= {"hidden": final} if module == "GRU" else dict(zip(("hidden", "cell"), final))
    json.dump({k: v.flatten().tolist() for k, v in values.items()}, open(out, "w"))
    print("torch", torch.__version__)


if __name__ == "__main__":
    main()
