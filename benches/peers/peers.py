#!/usr/bin/env python3
"""Times the LSTMs of other libraries on the cases of the `speed` example.

Reads one case per line from standard input, `MODE B T I H MODEL`, and answers each with a line of
JSON, as `cargo run --release --example speed -- --serve` does; compare.py runs both in turn.

Models: `torch` (torch.nn.LSTM, torch.nn.LSTMCell for single steps), `onnxruntime` (the LSTM operator,
no training) and, as plain loops over time in eager PyTorch, the arithmetic of the original
implementations of the variants: see `EAGER`.

A training step is the loss sum(output * cotangent) with gradients of the input and all weights.
"""

import argparse
import json
import platform
import statistics
import sys
import time

PIP = "pip install -r benches/peers/requirements.txt"

MODES = ("inference", "training", "step")


def load(name):
    """Imports a library, or says in one sentence how to get it."""
    try:
        return __import__(name)
    except ImportError as error:
        raise SystemExit(f"error: {name} cannot be imported ({error}); install it with: {PIP}")


# --- Eager variants -----------------------------------------------------------------------------
#
# Each is a function (torch, I, H) -> (parameters, step, initial extras): a step maps (x, state) to a
# state whose first entry is h. The loop over time is `run_eager`. Masks are drawn in every training
# step, as the originals do. Dropout has probability 0.5.


def uniform(torch, *shape):
    """A parameter, from the distribution of torch.nn.LSTM."""
    bound = shape[-1] ** -0.5
    return torch.nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def gates(torch, z, c):
    """The LSTM after its pre-activations."""
    i, f, g, o = z.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class Eager:
    """Two linear layers for all gates, per step: LSTM of lstms.pth without dropout."""

    def __init__(self, torch, d_input, d_hidden):
        self.torch = torch
        self.d_input = d_input
        self.d_hidden = d_hidden
        self.input = torch.nn.Linear(d_input, 4 * d_hidden)
        self.hidden = torch.nn.Linear(d_hidden, 4 * d_hidden)
        self.more = []

    def parameters(self):
        return [*self.input.parameters(), *self.hidden.parameters(), *self.more]

    def start(self, batch):
        """The state before the first step, and what is drawn once per sequence."""
        zeros = self.torch.zeros(batch, self.d_hidden)
        return zeros, zeros

    def step(self, x, state):
        h, c = state
        return gates(self.torch, self.input(x) + self.hidden(h), c)

    def run(self, x):
        """All hidden states, of a batch [batch, time, features]."""
        state = self.start(x.shape[0])
        outputs = []
        for x_t in x.unbind(1):
            state = self.step(x_t, state)
            outputs.append(state[0])
        return self.torch.stack(outputs, 1)


class Gal(Eager):
    """One mask per sequence on h (Gal & Ghahramani; GalLSTM of lstms.pth)."""

    def start(self, batch):
        keep = self.torch.full((batch, self.d_hidden), 0.5)
        self.mask = self.torch.bernoulli(keep) / 0.5
        return super().start(batch)

    def step(self, x, state):
        h, c = super().step(x, state)
        return h * self.mask, c


class LayerNorm(Eager):
    """Normalises the pre-activations of input and state and the cell, with dropout on h (lstms.pth)."""

    def __init__(self, torch, d_input, d_hidden):
        super().__init__(torch, d_input, d_hidden)
        self.norms = [torch.nn.LayerNorm(n) for n in (4 * d_hidden, 4 * d_hidden, d_hidden)]
        self.more = [p for norm in self.norms for p in norm.parameters()]

    def step(self, x, state):
        torch = self.torch
        h, c = state
        norm_input, norm_hidden, norm_cell = self.norms
        z = norm_input(self.input(x)) + norm_hidden(self.hidden(h))
        i, f, g, o = z.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(norm_cell(c))
        return torch.nn.functional.dropout(h, 0.5), c


class Peephole(Eager):
    """Input and forget gate see c, the output gate c' (Gers & Schmidhuber)."""

    def __init__(self, torch, d_input, d_hidden):
        super().__init__(torch, d_input, d_hidden)
        self.more = [uniform(torch, d_hidden) for _ in range(3)]

    def step(self, x, state):
        torch = self.torch
        h, c = state
        v_i, v_f, v_o = self.more
        i, f, g, o = (self.input(x) + self.hidden(h)).chunk(4, 1)
        c_new = torch.sigmoid(f + v_f * c) * c + torch.sigmoid(i + v_i * c) * torch.tanh(g)
        return torch.sigmoid(o + v_o * c_new) * torch.tanh(c_new), c_new


class Ur(Eager):
    """A refine gate in place of the input gate (Gu et al.)."""

    def step(self, x, state):
        torch = self.torch
        h, c = state
        r, f, g, o = (self.input(x) + self.hidden(h)).chunk(4, 1)
        r, f = torch.sigmoid(r), torch.sigmoid(f)
        e = 2 * r * f + (1 - 2 * r) * f * f
        c = e * c + (1 - e) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Mogrifier(Eager):
    """Input and state gate each other for five rounds before the step (Melis et al.)."""

    ROUNDS = 5

    def __init__(self, torch, d_input, d_hidden):
        super().__init__(torch, d_input, d_hidden)
        shapes = [(d_hidden, d_input), (d_input, d_hidden)]
        self.more = [uniform(torch, *shapes[n % 2]) for n in range(self.ROUNDS)]

    def step(self, x, state):
        torch = self.torch
        h, c = state
        for n, weight in enumerate(self.more):
            if n % 2 == 0:
                x = 2 * torch.sigmoid(h @ weight) * x
            else:
                h = 2 * torch.sigmoid(x @ weight) * h
        return super().step(x, (h, c))


class Adaptive(Eager):
    """A small LSTM scales inputs, pre-activations and bias (Flennerhag et al.)."""

    def __init__(self, torch, d_input, d_hidden):
        super().__init__(torch, d_input, d_hidden)
        self.d_adapt = 100  # as the default here
        self.adapt_input = torch.nn.Linear(d_input + d_hidden, 4 * self.d_adapt)
        self.adapt_hidden = torch.nn.Linear(self.d_adapt, 4 * self.d_adapt)
        self.sizes = [d_input, d_hidden, 4 * d_hidden, 4 * d_hidden, 4 * d_hidden]
        self.policy = torch.nn.Linear(self.d_adapt, sum(self.sizes))
        self.weights = uniform(torch, d_input, 4 * d_hidden), uniform(torch, d_hidden, 4 * d_hidden)
        self.bias = uniform(torch, 4 * d_hidden)

    def parameters(self):
        modules = self.adapt_input, self.adapt_hidden, self.policy
        return [*(p for m in modules for p in m.parameters()), *self.weights, self.bias]

    def start(self, batch):
        zeros = self.torch.zeros(batch, self.d_adapt)
        return *super().start(batch), zeros, zeros

    def step(self, x, state):
        torch = self.torch
        h, c, adapt_h, adapt_c = state
        z = self.adapt_input(torch.cat([x, h], 1)) + self.adapt_hidden(adapt_h)
        adapt_h, adapt_c = gates(torch, z, adapt_c)
        policy = torch.tanh(self.policy(adapt_h))
        p_x, p_h, p_i, p_g, p_b = policy.split(self.sizes, 1)
        w, r = self.weights
        z = ((x * p_x) @ w) * p_i + ((h * p_h) @ r) * p_g + self.bias * p_b
        return *gates(torch, z, c), adapt_h, adapt_c


# Name here: (class, the model of the `speed` example with the same arithmetic).
EAGER = {
    "eager-lstm": (Eager, "lstm"),
    "eager-gal": (Gal, "GalLSTM"),
    "eager-layer-norm": (LayerNorm, "LayerNormLSTM"),
    "eager-peephole": (Peephole, "PeepholeLSTM"),
    "eager-ur": (Ur, "URLSTM"),
    "eager-mogrifier": (Mogrifier, "MogrifierLSTM"),
    "eager-adaptive": (Adaptive, "AdaptiveLSTM"),
}

MODELS = ("torch", "onnxruntime", *EAGER)


# --- Workloads: a function that makes one call --------------------------------------------------


def training_call(torch, forward, parameters, batch, steps, d_input, d_hidden):
    """One forward and backward pass with all gradients."""
    x = torch.rand(batch, steps, d_input) * 2 - 1
    cotangent = torch.rand(batch, steps, d_hidden) * 2 - 1
    x.requires_grad_(True)

    def call():
        x.grad = None
        for parameter in parameters:
            parameter.grad = None
        (forward(x) * cotangent).sum().backward()

    return call


def torch_call(mode, batch, steps, d_input, d_hidden):
    torch = load("torch")
    if mode == "step":
        cell = torch.nn.LSTMCell(d_input, d_hidden)
        x = torch.rand(batch, d_input) * 2 - 1
        state = (torch.zeros(batch, d_hidden), torch.zeros(batch, d_hidden))

        def step():
            nonlocal state
            with torch.inference_mode():
                state = cell(x, state)

        return step
    lstm = torch.nn.LSTM(d_input, d_hidden, batch_first=True)
    if mode == "training":
        parameters = list(lstm.parameters())
        sizes = batch, steps, d_input, d_hidden
        return training_call(torch, lambda x: lstm(x)[0], parameters, *sizes)
    lstm.eval()
    x = torch.rand(batch, steps, d_input) * 2 - 1

    def infer():
        with torch.inference_mode():
            lstm(x)

    return infer


def eager_call(model, mode, batch, steps, d_input, d_hidden):
    torch = load("torch")
    if mode != "training":
        raise ValueError(f"{model} is timed in training only; got mode {mode}")
    eager = EAGER[model][0](torch, d_input, d_hidden)
    sizes = batch, steps, d_input, d_hidden
    return training_call(torch, eager.run, eager.parameters(), *sizes)


def onnxruntime_call(threads, mode, batch, steps, d_input, d_hidden):
    if mode == "training":
        raise ValueError("onnxruntime has no training of the LSTM operator; expected inference or step")
    numpy, onnx, runtime = load("numpy"), load("onnx"), load("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    random = numpy.random.default_rng(1234)
    bound = d_hidden**-0.5

    def weight(name, *shape):
        values = random.uniform(-bound, bound, shape).astype(numpy.float32)
        return numpy_helper.from_array(values, name)

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node(
        "LSTM",
        inputs=["X", "W", "R", "B", "", "h0", "c0"],
        outputs=["Y", "h", "c"],
        hidden_size=d_hidden,
    )
    state_shape = 1, batch, d_hidden
    graph = helper.make_graph(
        [node],
        "lstm",
        [tensor("X", steps, batch, d_input), tensor("h0", *state_shape), tensor("c0", *state_shape)],
        [
            tensor("Y", steps, 1, batch, d_hidden),
            tensor("h", *state_shape),
            tensor("c", *state_shape),
        ],
        [
            weight("W", 1, 4 * d_hidden, d_input),
            weight("R", 1, 4 * d_hidden, d_hidden),
            weight("B", 1, 8 * d_hidden),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = random.uniform(-1, 1, (steps, batch, d_input)).astype(numpy.float32)
    h = c = numpy.zeros(state_shape, numpy.float32)

    def call():
        nonlocal h, c
        _, new_h, new_c = session.run(None, {"X": x, "h0": h, "c0": c})
        if mode == "step":
            h, c = new_h, new_c

    return call


def parse(line):
    """MODE B T I H MODEL as (model, mode, sizes)."""
    words = line.split()
    if len(words) != 6:
        raise ValueError(f"`{line}` has {len(words)} words; expected `MODE B T I H MODEL`")
    mode, *sizes, model = words
    if mode not in MODES:
        raise ValueError(f"unknown mode `{mode}`; known are: {', '.join(MODES)}")
    if model not in MODELS:
        raise ValueError(f"unknown model `{model}`; known are: {', '.join(MODELS)}")
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise ValueError(f"the sizes of `{line}` are {sizes}; expected whole numbers of at least 1")
    return model, mode, [int(size) for size in sizes]


def build(model, threads, mode, sizes):
    if model == "torch":
        return torch_call(mode, *sizes)
    if model == "onnxruntime":
        return onnxruntime_call(threads, mode, *sizes)
    return eager_call(model, mode, *sizes)


def timed(call):
    """Milliseconds of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def batch_of_calls(call, budget):
    """A call to warm up, then calls for `budget` seconds, at least one: as --serve does."""
    start = time.perf_counter()
    last = timed(call)
    times = []
    while not times or time.perf_counter() - start + last * 1e-3 <= budget:
        last = timed(call)
        times.append(last)
    return times


def versions():
    found = {"python": platform.python_version()}
    for name in ("torch", "onnxruntime", "onnx", "numpy"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = None
    return found


def serve(lines, threads, budget):
    print(json.dumps({"versions": versions(), "threads": threads}), flush=True)
    case, calls = None, {}
    for line in lines:
        if not line.strip():
            continue
        try:
            model, mode, sizes = parse(line.strip())
            if (mode, sizes) != case:
                case, calls = (mode, sizes), {}
            if model not in calls:
                call = build(model, threads, mode, sizes)
                calls[model] = call, timed(call)
            call, first = calls[model]
            times = batch_of_calls(call, budget)
            batch, steps, d_input, d_hidden = sizes
            answer = {
                "model": model, "mode": mode,
                "batch": batch, "seq": steps, "d_input": d_input, "d_hidden": d_hidden,
                "ms_median": statistics.median(times), "ms_min": min(times), "ms_first": first,
                "calls": len(times),
            }  # fmt: skip
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default 2)")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="seconds of the calls of one answer (default 1)"
    )
    parser.add_argument(
        "case", nargs="*", metavar="CASE",
        help="cases in quotes, such as 'inference 32 50 128 128 torch'; default: from standard input",
    )  # fmt: skip
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads is {args.threads}; expected at least 1")
    # Not only for its number of threads: a missing library must be known before the first case.
    torch = load("torch")
    torch.set_num_threads(args.threads)
    torch.manual_seed(1234)
    serve(args.case or sys.stdin, args.threads, args.budget)


if __name__ == "__main__":
    main()
