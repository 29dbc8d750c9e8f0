"""Makes the Keras files of this folder: `python make_keras_gru.py` (needs NumPy alone).

The step is that of `GRUCell.call` in Keras 3 (`keras/src/layers/rnn/gru.py`), in float64: columns update,
reset, candidate; with `reset_after` the bias has one row for x and one for h. Weights of the layer have the
prefix `gru.`; `x`, `h0` and the outputs `y` are [batch, time, features], [batch, units].
"""

import json
import pathlib
import struct

import numpy as np

FOLDER = pathlib.Path(__file__).parent
BATCH, TIME, INPUT, UNITS = 2, 4, 3, 5


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step(x, h, t, reset_after):
    kernel, recurrent, bias = t["gru.kernel"], t["gru.recurrent_kernel"], t["gru.bias"]
    input_bias, recurrent_bias = bias if reset_after else (bias, None)
    x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3, axis=1)
    if reset_after:
        inner = h @ recurrent + recurrent_bias
    else:
        inner = h @ recurrent[:, : 2 * UNITS]
    z = sigmoid(x_z + inner[:, :UNITS])
    r = sigmoid(x_r + inner[:, UNITS : 2 * UNITS])
    if reset_after:
        recurrent_h = r * inner[:, 2 * UNITS :]
    else:
        recurrent_h = (r * h) @ recurrent[:, 2 * UNITS :]
    return z * h + (1 - z) * np.tanh(x_h + recurrent_h)


def write(name, seed, reset_after):
    rng = np.random.default_rng(seed)
    shapes = {
        "gru.kernel": (INPUT, 3 * UNITS),
        "gru.recurrent_kernel": (UNITS, 3 * UNITS),
        "gru.bias": (2, 3 * UNITS) if reset_after else (3 * UNITS,),
        "x": (BATCH, TIME, INPUT),
        "h0": (BATCH, UNITS),
    }
    # Values that float32 holds exactly.
    t = {key: np.round(rng.uniform(-1, 1, shape) * 1024) / 1024 for key, shape in shapes.items()}
    h, outputs = t["h0"], []
    for time in range(TIME):
        h = step(t["x"][:, time], h, t, reset_after)
        outputs.append(h)
    t["y"] = np.stack(outputs, axis=1)

    header, data = {}, b""
    for key in sorted(t):
        value = np.ascontiguousarray(t[key], dtype="<f4")
        place = [len(data), len(data) + value.nbytes]
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": place}
        data += value.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (FOLDER / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


write("keras_gru_reset_after.safetensors", 1, True)
write("keras_gru.safetensors", 2, False)
