"""Makes golden files that no original was run for: `python make_files.py` (needs NumPy alone).

The equations are written out once, step by step, in NumPy. Values are float64. A gradient is the
imaginary part of the loss at `value + i·1e-30`, divided by 1e-30: exact to a rounding of float64,
since no difference is taken.

`python make_files.py --check data/alstm__l2_dropout_train.safetensors …` computes the files named
again (`alstm`, `cifg_peephole`, `peephole_*` with an initial state) and prints the largest difference from what they hold,
relative to the largest value of each tensor. Files of the originals agree within the rounding to
float32, 6e-8.
"""

import argparse
import json
import pathlib
import struct

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "data"
STEP = 1e-30


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(z, c):
    """Gates input, forget, candidate, output; returns h and c."""
    i, f, g, o = np.split(z, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def alstm(t, options):
    """One policy network and one LSTM per layer; the policy scales what the LSTM multiplies."""
    layers = range(options["num_layers"])
    h, c, z, m = (
        [t[f"{name}.{l}"] for l in layers] for name in ("h0", "c0", "adapt_h0", "adapt_c0")
    )

    def drop(value, name, layer, p):
        if not options["training"] or p is None:
            return value
        return value * t[f"mask.{name}.{layer}"] / (1 - p)

    outputs = []
    for x in t["x"]:
        for l in layers:
            below = [] if len(layers) == 1 else [z[l - 1]]  # z[-1]: the top one of the step before
            adapt = f"param.adapt_layers.{l}."
            preact = np.concatenate([x, h[l], *below], -1) @ t[adapt + "weight_ih"].T
            preact = preact + t[adapt + "bias_ih"]
            preact = preact + z[l] @ t[adapt + "weight_hh"].T + t[adapt + "bias_hh"]
            z[l], m[l] = lstm(preact, m[l])
            z[l] = drop(z[l], "adapt", l, options["dropout_adapt"])

            policy = np.tanh(z[l] @ t[f"param.project_layers.{l}.linear.weight"].T)
            gates = 4 * h[l].shape[-1]
            cuts = np.cumsum([x.shape[-1], h[l].shape[-1], gates, gates])
            p_x, p_h, p_i, p_g, p_b = np.split(policy, cuts, axis=-1)
            main = f"param.alstm_layers.{l}."
            preact = ((x * p_x) @ t[main + "weight_ih"].T) * p_i
            preact = preact + ((h[l] * p_h) @ t[main + "weight_hh"].T) * p_g
            if options["bias"]:
                preact = preact + t[main + "bias"] * p_b
            y, c[l] = lstm(preact, c[l])
            x = h[l] = drop(y, "h", l, options["dropout_alstm"])
        outputs.append(y)
    result = {"y": np.stack(outputs)}
    for name, values in (("h_n", h), ("c_n", c), ("adapt_h_n", z), ("adapt_c_n", m)):
        result.update({f"{name}.{l}": values[l] for l in layers})
    return result


def peephole(t, options):
    """Coupled or independent gates, with full or diagonal peepholes."""
    layers = range(options["num_layers"])
    full = options["peephole"] == "full"
    h, c = list(t["h0"]), list(t["c0"])

    def gate(letter, l, x, seen):
        p = f"param.layers.{l}."
        z = h[l] @ t[f"{p}W{letter}h"].T + x @ t[f"{p}W{letter}x"].T + t[f"{p}b{letter}"]
        if seen is None:
            return np.tanh(z)
        v = t[f"{p}V{letter}"]
        return sigmoid(z + (seen @ v.T if full else seen * v))

    outputs = []
    for x in t["x"]:
        for l in layers:
            f = gate("f", l, x, c[l])
            i = 1 - f if options["coupled"] else gate("i", l, x, c[l])
            new = f * c[l] + i * gate("c", l, x, None)
            o = gate("o", l, x, new if options["output_peephole"] == "c_t" else c[l])
            x = h[l] = o * np.tanh(new)
            c[l] = new
        outputs.append(x)
    return {"y": np.stack(outputs), "h_n": np.stack(h), "c_n": np.stack(c)}


FORWARD = {
    "alstm": alstm,
    "cifg_peephole": peephole,
    "peephole_diag": peephole,
    "peephole_full": peephole,
}


def loss(t, outputs):
    return sum(np.sum(value * t[f"loss_w.{name}"]) for name, value in outputs.items())


def compute(variant, given, options):
    """Outputs, loss and gradients of the tensors `given`, in float64."""
    forward = FORWARD[variant]
    given = {name: value.astype(np.float64) for name, value in given.items()}
    outputs = forward(given, options)
    result = dict(outputs, loss=np.array([loss(given, outputs)]))
    for name, value in given.items():
        if name.startswith(("loss_w.", "mask.")):
            continue
        gradient = np.empty_like(value)
        for index in np.ndindex(value.shape):
            moved = value.astype(np.complex128)
            moved[index] += 1j * STEP
            t = dict(given, **{name: moved})
            gradient[index] = loss(t, forward(t, options)).imag / STEP
        result["grad." + name] = gradient
    return result


def draw(shapes, seed):
    """Uniform numbers within ±0.8, as float32."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-0.8, 0.8, shape).astype(np.float32) for name, shape in shapes.items()}


def alstm_case():
    batch, seq, d_input, sizes, adapt = 3, 5, 4, [5, 3], 3
    shapes = {"x": (seq, batch, d_input), "loss_w.y": (seq, batch, sizes[-1])}
    for l, size in enumerate(sizes):
        below = d_input if l == 0 else sizes[l - 1]
        for name, width in (("h", size), ("c", size), ("adapt_h", adapt), ("adapt_c", adapt)):
            shapes[f"{name}0.{l}"] = shapes[f"loss_w.{name}_n.{l}"] = (batch, width)
        shapes[f"param.adapt_layers.{l}.weight_ih"] = (4 * adapt, below + size + adapt)
        shapes[f"param.adapt_layers.{l}.weight_hh"] = (4 * adapt, adapt)
        shapes[f"param.adapt_layers.{l}.bias_ih"] = (4 * adapt,)
        shapes[f"param.adapt_layers.{l}.bias_hh"] = (4 * adapt,)
        shapes[f"param.project_layers.{l}.linear.weight"] = (below + 13 * size, adapt)
        shapes[f"param.alstm_layers.{l}.weight_ih"] = (4 * size, below)
        shapes[f"param.alstm_layers.{l}.weight_hh"] = (4 * size, size)
        shapes[f"param.alstm_layers.{l}.bias"] = (4 * size,)
    given = draw(shapes, 41)
    rng = np.random.default_rng(42)
    for l, size in enumerate(sizes):
        given[f"mask.h.{l}"] = (rng.random((batch, size)) < 0.6).astype(np.float32)
    options = {
        "batch": batch, "seq": seq, "input_size": d_input, "hidden_size": sizes[0],
        "adapt_size": adapt, "output_size": sizes[-1], "num_layers": len(sizes), "bias": True,
        "batch_first": False, "dropout_alstm": 0.4, "dropout_adapt": None, "training": True,
        "state": "random", "policy_offsets": "cumulative",
    }
    return "alstm", "l2_dropout_h_only", options, given


def peephole_case():
    batch, seq, d_input, d_hidden = 3, 5, 4, 5
    shapes = {"x": (seq, batch, d_input), "loss_w.y": (seq, batch, d_hidden)}
    for name in ("h0", "c0", "loss_w.h_n", "loss_w.c_n"):
        shapes[name] = (1, batch, d_hidden)
    for letter in "fco":
        shapes[f"param.layers.0.W{letter}h"] = (d_hidden, d_hidden)
        shapes[f"param.layers.0.W{letter}x"] = (d_hidden, d_input)
        shapes[f"param.layers.0.b{letter}"] = (d_hidden,)
    for letter in "fo":
        shapes[f"param.layers.0.V{letter}"] = (d_hidden, d_hidden)
    options = {
        "batch": batch, "seq": seq, "input_size": d_input, "hidden_size": d_hidden,
        "num_layers": 1, "coupled": True, "peephole": "full", "output_peephole": "c_t",
        "batch_first": False, "state": "random",
    }
    return "cifg_peephole", "full_ct_state", options, draw(shapes, 43)


def save(variant, case, options, tensors, metadata):
    """Writes one file, the numbers rounded to float32."""
    header = {
        "__metadata__": {
            "variant": variant, "case": case, "options": json.dumps(options), **metadata
        }
    }
    data = b""
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name], dtype="<f4")
        place = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": place}
        data += value.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = FOLDER / f"{variant}__{case}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{path}: {path.stat().st_size} bytes")


def write(variant, case, options, given):
    tensors = dict(given, **compute(variant, given, options))
    metadata = {
        "computed": "float64 from the stored float32 values, gradients by complex steps, "
        "results rounded to float32",
        "generator": f"tests/golden/make_files.py, NumPy {np.__version__}",
        "source": "own implementation from the equations",
    }
    save(variant, case, options, tensors, metadata)


def read(path):
    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    data = content[8 + length :]
    tensors = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(info["shape"])
    return metadata["variant"], json.loads(metadata["options"]), tensors


def check(path):
    variant, options, tensors = read(path)
    kept = ("param.", "mask.", "loss_w.", "x", "h0", "c0", "adapt_h0", "adapt_c0")
    given = {name: value for name, value in tensors.items() if name.startswith(kept)}
    results = compute(variant, given, options)
    missing = set(tensors) - set(given) - set(results)
    assert not missing, f"not computed: {missing}"
    worst = {"values": 0.0, "gradients": 0.0}
    for name, value in results.items():
        difference = np.abs(value - tensors[name]).max() / max(np.abs(tensors[name]).max(), 1e-3)
        kind = "gradients" if name.startswith("grad.") else "values"
        worst[kind] = max(worst[kind], difference)
    print(f"{path}: values {worst['values']:.1e}, gradients {worst['gradients']:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.check:
        for path in args.check:
            check(path)
        return
    write(*alstm_case())
    write(*peephole_case())


if __name__ == "__main__":
    main()
