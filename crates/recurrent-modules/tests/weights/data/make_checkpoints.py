"""Makes the PyTorch files of this folder: `python make_checkpoints.py` (torch >= 2.1).

Weights come from a formula, so that a new run gives the same files but for torch's own metadata.
Each `<name>.json` holds an input and what PyTorch computes for it.
"""

import json
import math
import os
import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent


def fill(module):
    """Values in +-0.5, another one for each entry, that f32 holds exactly."""
    start = 1
    with torch.no_grad():
        for parameter in module.parameters():
            count = parameter.numel()
            values = [math.sin(0.37 * k) * 0.5 for k in range(start, start + count)]
            values = [round(v * 1024) / 1024 for v in values]
            parameter.copy_(torch.tensor(values).reshape(parameter.shape))
            start += count


def record(name, module, state_dict):
    x = torch.tensor([math.cos(0.3 * k) for k in range(2 * 5 * 3)]).reshape(2, 5, 3)
    with torch.no_grad():
        y, (h, c) = module(x)
    case = {
        "input": x.flatten().tolist(),
        "output": y.flatten().tolist(),
        "shape": list(y.shape),
        "hidden": h.flatten().tolist(),
        "cell": c.flatten().tolist(),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(case))
    torch.save(state_dict, FOLDER / f"{name}.pt")


class Model(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.encoder = lstm
        self.head = torch.nn.Linear(4, 2)


class Code:
    """What a file may not do: call a function when it is read."""

    def __reduce__(self):
        return (os.system, ("echo run > pickle_was_run",))


def main():
    lstm = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True)
    fill(lstm)
    record("all_options", lstm, lstm.state_dict())

    lstm = torch.nn.LSTM(3, 4, batch_first=True)
    fill(lstm)
    # A training checkpoint: the state dict within others, integers as keys, numbers beside.
    model = Model(lstm)
    optimizer = torch.optim.Adam(model.parameters())
    model.encoder(torch.ones(1, 2, 3))[0].sum().backward()
    optimizer.step()
    fill(lstm)
    checkpoint = {
        "epoch": 3,
        "loss": 0.25,
        "tags": ["a", None, True],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    record("training", lstm, checkpoint)

    state = lstm.state_dict()
    torch.save(state, FOLDER / "old_format.pt", _use_new_zipfile_serialization=False)
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)]:
        torch.save({k: v.to(dtype) for k, v in state.items()}, FOLDER / f"{name}.pt")
    # Transposed views: strides that are not those of a tensor without gaps.
    torch.save({k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()},
               FOLDER / "strided.pt")
    torch.save({"lstm": state, "extra": Code()}, FOLDER / "with_code.pt")
    torch.save({"lstm": torch.zeros(1).expand(1000, 1000)}, FOLDER / "expanded.pt")


if __name__ == "__main__":
    main()
