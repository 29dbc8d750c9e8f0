"""Makes the golden files of the GRU: `python make_gru.py` (needs PyTorch and NumPy).

`gru` and `gru_cell` are `torch.nn.GRU` and `torch.nn.GRUCell` in float64, gradients by autograd. PyTorch has
one form only, in which the reset gate multiplies the recurrent product; the files with `reset_after` false
have the other form, written here from the equations in float64 operations of PyTorch.

Each case is computed a second time: values by the plain NumPy loop below, gradients of that loop by complex
steps (see `make_files.py`). The largest differences are in each file's metadata; above 1e-12 nothing is
written.
"""

import json

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from make_files import STEP, draw, save, sigmoid

AFTER = (
    "r = sigmoid(W_ir x + b_ir + W_hr h + b_hr); z = sigmoid(W_iz x + b_iz + W_hz h + b_hz); "
    "n = tanh(W_in x + b_in + r*(W_hn h + b_hn)); h' = (1-z)*n + z*h"
)
BEFORE = (
    "r = sigmoid(W_ir x + b_ir + W_hr h + b_hr); z = sigmoid(W_iz x + b_iz + W_hz h + b_hz); "
    "n = tanh(W_in x + b_in + W_hn (r*h) + b_hn); h' = (1-z)*n + z*h"
)


# --- NumPy, one sequence of the batch after the other


def step(x, h, t, suffix, options):
    """One step of one sequence: vectors, the weights as PyTorch stores them."""
    size = h.shape[-1]
    w_x, w_h = t[f"param.weight_ih{suffix}"], t[f"param.weight_hh{suffix}"]
    zero = np.zeros(3 * size)
    b_x = t[f"param.bias_ih{suffix}"] if options["bias"] else zero
    b_h = t[f"param.bias_hh{suffix}"] if options["bias"] else zero
    r_rows, z_rows, n_rows = (slice(k * size, (k + 1) * size) for k in range(3))
    r = sigmoid(w_x[r_rows] @ x + b_x[r_rows] + w_h[r_rows] @ h + b_h[r_rows])
    z = sigmoid(w_x[z_rows] @ x + b_x[z_rows] + w_h[z_rows] @ h + b_h[z_rows])
    if options["reset_after"]:
        s = r * (w_h[n_rows] @ h + b_h[n_rows])
    else:
        s = w_h[n_rows] @ (r * h) + b_h[n_rows]
    n = np.tanh(w_x[n_rows] @ x + b_x[n_rows] + s)
    return (1 - z) * n + z * h


def numpy_gru(t, options):
    x = t["x"].swapaxes(0, 1) if options["batch_first"] else t["x"]
    seq, batch, _ = x.shape
    layers, size = options["num_layers"], options["hidden_size"]
    directions = 2 if options["bidirectional"] else 1
    lengths = options["lengths"] or [seq] * batch
    kind = np.result_type(*t.values())
    last = np.zeros((layers * directions, batch, size), kind)
    for layer in range(layers):
        y = np.zeros((seq, batch, directions * size), kind)
        for direction in range(directions):
            index = layer * directions + direction
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            for row in range(batch):
                h = t["h0"][index, row] if "h0" in t else np.zeros(size)
                times = range(lengths[row])
                for time in reversed(times) if direction else times:
                    h = step(x[time, row], h, t, suffix, options)
                    y[time, row, direction * size : (direction + 1) * size] = h
                last[index, row] = h
        x = y
    return {"y": x.swapaxes(0, 1) if options["batch_first"] else x, "h_n": last}


def numpy_cell(t, options):
    zero = np.zeros((len(t["x"]), options["hidden_size"]))
    rows = zip(t["x"], t.get("h0", zero))
    return {"h_n": np.stack([step(x, h, t, "", options) for x, h in rows])}


# --- PyTorch


def torch_gru(t, options):
    """torch.nn.GRU, on tensors that may require a gradient."""
    gru = torch.nn.GRU(
        options["input_size"], options["hidden_size"], options["num_layers"], options["bias"],
        batch_first=options["batch_first"], bidirectional=options["bidirectional"],
    )  # fmt: skip
    params = {name[6:]: value for name, value in t.items() if name.startswith("param.")}
    assert params.keys() == dict(gru.named_parameters()).keys()
    x, lengths = t["x"], options["lengths"]
    if lengths is None:
        y, last = torch.func.functional_call(gru, params, (x, t.get("h0")))
    else:
        first = options["batch_first"]
        packed = pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False)
        y, last = torch.func.functional_call(gru, params, (packed, t.get("h0")))
        y, _ = pad_packed_sequence(y, first, total_length=options["seq"])
    return {"y": y, "h_n": last}


def torch_cell(t, options):
    cell = torch.nn.GRUCell(options["input_size"], options["hidden_size"], options["bias"])
    params = {name[6:]: value for name, value in t.items() if name.startswith("param.")}
    assert params.keys() == dict(cell.named_parameters()).keys()
    return {"h_n": torch.func.functional_call(cell, params, (t["x"], t.get("h0")))}


def original_gru(t, options):
    """The form with the reset gate before the product, the whole batch at once."""
    linear = torch.nn.functional.linear
    x = t["x"].transpose(0, 1) if options["batch_first"] else t["x"]
    seq, batch, _ = x.shape
    directions = 2 if options["bidirectional"] else 1
    lengths = torch.tensor(options["lengths"] or [seq] * batch)
    lasts = []
    for layer in range(options["num_layers"]):
        outputs = []
        for direction in range(directions):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            w_x, w_h = (t[f"param.weight_{of}{suffix}"].chunk(3) for of in ("ih", "hh"))
            bias = 3 * [None]
            if options["bias"]:
                sums = t[f"param.bias_ih{suffix}"] + t[f"param.bias_hh{suffix}"]
                bias = sums.chunk(3)
            zero = torch.zeros(batch, options["hidden_size"], dtype=x.dtype)
            h = t["h0"][layer * directions + direction] if "h0" in t else zero
            ys = seq * [None]
            for time in reversed(range(seq)) if direction else range(seq):
                a_r, a_z, a_n = (linear(x[time], w, b) for w, b in zip(w_x, bias))
                r = torch.sigmoid(a_r + linear(h, w_h[0]))
                z = torch.sigmoid(a_z + linear(h, w_h[1]))
                n = torch.tanh(a_n + linear(r * h, w_h[2]))
                runs = (time < lengths)[:, None]
                h = torch.where(runs, (1 - z) * n + z * h, h)
                ys[time] = torch.where(runs, h, zero)
            lasts.append(h)
            outputs.append(torch.stack(ys))
        x = torch.cat(outputs, -1)
    return {"y": x.transpose(0, 1) if options["batch_first"] else x, "h_n": torch.stack(lasts)}


# --- both


def total(t, outputs):
    return sum((value * t[f"loss_w.{name}"]).sum() for name, value in outputs.items())


def with_torch(forward, given, options, kind):
    """Outputs, loss and gradients."""
    t = {name: torch.tensor(value, dtype=kind) for name, value in given.items()}
    leaves = {name: t[name].requires_grad_() for name in t if not name.startswith("loss_w.")}
    outputs = forward(t, options)
    loss = total(t, outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    result = dict(outputs, loss=loss.reshape(1))
    result.update({f"grad.{name}": value for name, value in zip(leaves, gradients)})
    return {name: value.detach().numpy() for name, value in result.items()}


def with_numpy(forward, given, options):
    """The same, gradients by complex steps."""
    given = {name: value.astype(np.float64) for name, value in given.items()}
    outputs = forward(given, options)
    result = dict(outputs, loss=total(given, outputs).reshape(1))
    for name, value in given.items():
        if name.startswith("loss_w."):
            continue
        gradient = np.empty_like(value)
        for index in np.ndindex(value.shape):
            moved = value.astype(np.complex128)
            moved[index] += 1j * STEP
            t = dict(given, **{name: moved})
            gradient[index] = total(t, forward(t, options)).imag / STEP
        result[f"grad.{name}"] = gradient
    return result


def largest_difference(a, b):
    """In values and in gradients, relative to the largest value of each tensor."""
    assert a.keys() == b.keys()
    worst = {"values": 0.0, "gradients": 0.0}
    for name in a:
        assert a[name].shape == b[name].shape, name
        difference = np.abs(a[name] - b[name]).max() / max(np.abs(b[name]).max(), 1e-3)
        kind = "gradients" if name.startswith("grad.") else "values"
        worst[kind] = max(worst[kind], float(difference))
    return worst


def write(case, seed, *, batch=3, seq=7, d_input=5, d_hidden=6, layers=1, bidirectional=False,
          bias=True, batch_first=False, lengths=None, state=True, reset_after=True, cell=False):
    directions = 2 if bidirectional else 1
    options = {
        "batch": batch, "input_size": d_input, "hidden_size": d_hidden, "bias": bias,
        "reset_after": reset_after, "state": "random" if state else "none",
    }  # fmt: skip
    shapes, suffixes = {}, {}
    if cell:
        shapes["x"], shapes["loss_w.h_n"] = (batch, d_input), (batch, d_hidden)
        suffixes[""] = d_input
    else:
        options.update(
            seq=seq, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first,
            lengths=lengths,
        )  # fmt: skip
        first = (batch, seq) if batch_first else (seq, batch)
        shapes["x"], shapes["loss_w.y"] = (*first, d_input), (*first, directions * d_hidden)
        shapes["loss_w.h_n"] = (layers * directions, batch, d_hidden)
        for layer in range(layers):
            for direction in ["", "_reverse"][:directions]:
                suffixes[f"_l{layer}{direction}"] = directions * d_hidden if layer else d_input
    if state:
        shapes["h0"] = shapes["loss_w.h_n"]
    for suffix, below in suffixes.items():
        shapes[f"param.weight_ih{suffix}"] = (3 * d_hidden, below)
        shapes[f"param.weight_hh{suffix}"] = (3 * d_hidden, d_hidden)
        if bias:
            shapes[f"param.bias_ih{suffix}"] = shapes[f"param.bias_hh{suffix}"] = (3 * d_hidden,)
    given = draw(shapes, seed)
    if d_hidden > 10:  # else the gates of so many units saturate
        for name in given:
            if name.startswith("param.weight"):
                given[name] = (given[name] / 4).astype(np.float32)

    forward = torch_cell if cell else torch_gru if reset_after else original_gru
    result = with_torch(forward, given, options, torch.float64)
    second = with_numpy(numpy_cell if cell else numpy_gru, given, options)
    checked = largest_difference(result, second)
    assert max(checked.values()) < 1e-12, checked
    rough = largest_difference(with_torch(forward, given, options, torch.float32), result)
    metadata = {
        "equations": AFTER if reset_after else BEFORE,
        "params_layout": "weight_ih_l{k}[_reverse] [3H,I], weight_hh [3H,H], bias_ih, bias_hh [3H] (a cell: "
        "no suffix); rows in gate order r,z,n; x @ W^T; x and y [T,B,.] ([B,T,.] if batch_first), h [L*D,B,H], "
        "index layer*D + direction; a cell's are [B,.]",
        "source": "pytorch/pytorch (torch.nn)" if reset_after else "own implementation from the equations",
        "notes": "lengths: y is zero past each end, h_n is taken at each sequence's own end, the reverse "
        "direction starts at each sequence's own last step, grad.x is zero in the padding",
        "computed": "float64 from the stored float32 values, results rounded to float32",
        "generator": f"tests/golden/make_gru.py, PyTorch {torch.__version__}, NumPy {np.__version__}",
        "numpy_difference": json.dumps(checked),
        "float32_error": json.dumps(rough),
    }
    print(case, checked, rough)
    save("gru_cell" if cell else "gru", case, options, dict(given, **result), metadata)


def main():
    medium = {"batch": 2, "seq": 12, "d_input": 19, "d_hidden": 33}
    write("l1_none", 101, state=False)
    write("l1_state", 102)
    write("l1_nobias", 103, bias=False)
    write("l1_b1_t1", 104, batch=1, seq=1)
    write("bi_l2_none", 105, layers=2, bidirectional=True, state=False)
    write("batch_first_l2_state", 106, layers=2, batch_first=True)
    write("packed_unsorted_bi_state", 107, bidirectional=True, lengths=[3, 7, 1])
    write("packed_batch_first_l2_state", 108, layers=2, batch_first=True, lengths=[7, 4, 2])
    write("medium_state", 109, **medium)
    write("state", 110, cell=True)
    write("nobias_none", 111, cell=True, bias=False, state=False)

    write("original_l1_state", 112, reset_after=False)
    write("original_l1_nobias", 113, reset_after=False, bias=False, state=False)
    write("original_bi_l2_none", 114, reset_after=False, layers=2, bidirectional=True, state=False)
    write("original_packed_unsorted_bi_state", 115, reset_after=False, bidirectional=True, lengths=[3, 7, 1])
    write("original_batch_first_medium", 116, reset_after=False, batch_first=True, **medium)


if __name__ == "__main__":
    main()
