#!/usr/bin/env python3
"""Compares this library with torch and onnxruntime, case by case and round by round.

Starts `speed --serve` and peers.py, asks both in turn (so that a machine that slows down slows down
both), and prints Markdown tables: medians, ratios, geometric means, peak memory of a training step,
and the time per step of sequences of growing length. Build the program first:

    cargo build --release --example speed
    python benches/peers/compare.py --json results/peers.json
"""

import argparse
import json
import math
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

from peers import EAGER, PIP

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

MODES = ("inference", "training", "step")
MEMORY = (64, 35, 1024, 1024)
LINEARITY_SIZE = 64
LINEARITY = [100, 1000, 10_000]

# Threads of the other side go on spinning for a moment after their last call.
PAUSE = 0.05

OURS = ("lstm", "burn::nn::Lstm")
SECTIONS = ("grid", "variants", "memory", "linearity", "devices")


def fail(text):
    raise SystemExit(f"error: {text}")


class Program:
    """A process that answers one line with one line of JSON."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.hello = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            fail(f"{self.name} ended with code {code}; what it said stands above")
        return json.loads(line)

    def ask(self, mode, shape, model):
        line = " ".join([mode, *map(str, shape), model])
        print(line, file=self.process.stdin, flush=True)
        answer = self.read()
        if "error" in answer:
            fail(f"{self.name} on `{line}`: {answer['error']}")
        return answer

    def peak_mib(self):
        """The most memory the process has had, in MiB; None where /proc is missing."""
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(lines[0].split()[1]) / 1024 if lines else None

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Session:
    """How to start both sides, and how often to ask them."""

    def __init__(self, args):
        self.args = args
        threads = str(args.threads)
        # Both sides get the same number of threads.
        self.environment = {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}

    def ours(self, budget=None, device=None):
        args = self.args
        budget = args.budget if budget is None else budget
        device = device or args.device
        command = [args.program, "--serve", "--device", device, "--budget", str(budget)]
        return Program("ours", command, self.environment)

    def peers(self, budget=None):
        args = self.args
        budget = args.budget if budget is None else budget
        command = [args.python, str(HERE / "peers.py")]
        command += ["--threads", str(args.threads), "--budget", str(budget)]
        return Program("peers.py", command, self.environment)

    def in_turn(self, ours, peers, mode, shape, models):
        """Rounds over `models`; the answers of each, with the median of its medians."""
        others = ("torch", "onnxruntime", *EAGER)
        sides = [(peers if model in others else ours, model) for model in models]
        return self.rounds(mode, shape, sides)

    def rounds(self, mode, shape, sides):
        """Asks each (program, model) in turn; what each gave."""
        answers = [[] for _ in sides]
        for number in range(self.args.rounds):
            note(f"{mode} {shape}, round {number + 1} of {self.args.rounds}", self.args.quiet)
            for (side, model), found in zip(sides, answers):
                time.sleep(PAUSE)
                found.append(side.ask(mode, shape, model))
        pairs = zip(sides, answers)
        return [summed_up(model, mode, shape, found) for (_, model), found in pairs]


def summed_up(model, mode, shape, rounds):
    batch, steps, d_input, d_hidden = shape
    return {
        "model": model, "mode": mode,
        "batch": batch, "seq": steps, "d_input": d_input, "d_hidden": d_hidden,
        "ms_median": statistics.median(answer["ms_median"] for answer in rounds),
        "ms_min": min(answer["ms_min"] for answer in rounds),
        "ms_first": rounds[0]["ms_first"],
        "calls": sum(answer["calls"] for answer in rounds),
        "ms_rounds": [answer["ms_median"] for answer in rounds],
    }  # fmt: skip


def note(text, quiet):
    """What is running, on a terminal only."""
    if sys.stderr.isatty() and not quiet:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def markdown(heading, columns, rows):
    print(f"\n## {heading}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |")
    sys.stdout.flush()


def ms(row):
    return None if row is None else f"{row['ms_median']:.3f}"


def ratio(row, ours):
    """How many times as long as ours."""
    return None if row is None else row["ms_median"] / ours["ms_median"]


def shown(number):
    return None if number is None else f"{number:.2f}"


def geometric_mean(values):
    values = [value for value in values if value is not None]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def grid(session, modes, cases):
    ours, peers = session.ours(), session.peers()
    versions = ours.hello, peers.hello
    rows, lines, ratios = [], [], {}
    for mode in modes:
        others = ["torch"] if mode == "training" else ["torch", "onnxruntime"]
        for shape in cases or ours.hello["cases"][mode]:
            # Other sizes than those of the catalogue hold in every mode.
            shape = (shape[0], 1, *shape[2:]) if mode == "step" else tuple(shape)
            found = session.in_turn(ours, peers, mode, shape, [*OURS, *others])
            rows += found
            by_model = {row["model"]: row for row in found}
            lstm = by_model["lstm"]
            compared = [by_model.get(name) for name in ("burn::nn::Lstm", "torch", "onnxruntime")]
            factors = [ratio(row, lstm) for row in compared]
            ratios.setdefault(mode, []).append(factors)
            size = ",".join(map(str, shape))
            lines.append([mode, size, *map(ms, [lstm, *compared]), *map(shown, factors)])
    for mode, factors in [*ratios.items(), ("all", sum(ratios.values(), []))]:
        means = [shown(geometric_mean(column)) for column in zip(*factors)]
        lines.append([mode, "geometric mean", None, None, None, None, *means])
    ours.close()
    peers.close()
    note("", session.args.quiet)
    columns = ["mode", "B,T,I,H", "ours (ms)", "burn (ms)", "torch (ms)", "onnxruntime (ms)"]
    columns += ["burn/ours", "torch/ours", "onnxruntime/ours"]
    markdown("Grid", columns, lines)
    return rows, versions


def variants(session, cases):
    ours, peers = session.ours(), session.peers()
    rows, lines, factors = [], [], []
    for shape in cases or ours.hello["variants"]:
        pairs = [(eager, model) for eager, (_, model) in EAGER.items()]
        models = [name for pair in pairs for name in pair]
        found = session.in_turn(ours, peers, "training", shape, models)
        rows += found
        by_model = {row["model"]: row for row in found}
        for eager, model in pairs:
            factor = ratio(by_model[eager], by_model[model])
            factors.append(factor)
            size = ",".join(map(str, shape))
            lines.append([size, model, ms(by_model[model]), ms(by_model[eager]), shown(factor)])
    lines.append(["geometric mean", None, None, None, shown(geometric_mean(factors))])
    ours.close()
    peers.close()
    note("", session.args.quiet)
    columns = ["B,T,I,H", "model", "ours (ms)", "eager torch (ms)", "eager/ours"]
    markdown("Training step of the variants", columns, lines)
    return rows


def memory(session, shape):
    """Peak of one process each, before and after training steps."""
    found = []
    for model, start in [("lstm", session.ours), ("burn::nn::Lstm", session.ours), ("torch", session.peers)]:
        note(f"memory of {model}", session.args.quiet)
        program = start(0)
        before = program.peak_mib()
        program.ask("training", shape, model)
        found.append({"model": model, "mib_idle": before, "mib_peak": program.peak_mib()})
        program.close()
    note("", session.args.quiet)
    whole = lambda number: None if number is None else f"{number:.0f}"
    markdown(
        f"Peak resident memory of training steps at {','.join(map(str, shape))}",
        ["model", "before (MiB)", "peak (MiB)"],
        [[row["model"], whole(row["mib_idle"]), whole(row["mib_peak"])] for row in found],
    )
    return found


def linearity(session, lengths):
    ours = session.ours()
    rows, lines = [], []
    for mode in ("inference", "training"):
        for steps in lengths:
            shape = 1, steps, LINEARITY_SIZE, LINEARITY_SIZE
            row = session.in_turn(ours, None, mode, shape, ["lstm"])[0]
            rows.append(row)
            lines.append([mode, steps, ms(row), f"{row['ms_median'] / steps * 1e3:.2f}"])
    ours.close()
    note("", session.args.quiet)
    heading = f"Length of the sequence (ours, batch 1, {LINEARITY_SIZE} inputs and units)"
    markdown(heading, ["mode", "steps", "ms", "µs per step"], lines)
    return rows


def devices(session, modes, cases):
    """Ours on two devices in turn."""
    names = [session.args.device, session.args.against]
    sides = [session.ours(device=name) for name in names]
    rows, lines, factors = [], [], []
    for mode in modes:
        for shape in cases or sides[0].hello["cases"][mode]:
            shape = (shape[0], 1, *shape[2:]) if mode == "step" else tuple(shape)
            found = session.rounds(mode, shape, [(side, "lstm") for side in sides])
            rows += [{**row, "device": name} for name, row in zip(names, found)]
            factors.append(ratio(found[1], found[0]))
            lines.append([mode, ",".join(map(str, shape)), *map(ms, found), shown(factors[-1])])
    lines.append(["geometric mean", None, None, None, shown(geometric_mean(factors))])
    for side in sides:
        side.close()
    note("", session.args.quiet)
    columns = ["mode", "B,T,I,H", *(f"{name} (ms)" for name in names), "/".join(reversed(names))]
    markdown("Ours on two devices", columns, lines)
    return rows


def case(text):
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        message = f"`{text}` is not a case; expected B,T,I,H, such as 32,50,128,128"
        raise argparse.ArgumentTypeError(message)
    return tuple(map(int, sizes))


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number of at least 1")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument(
        "--program", default=str(target / "release/examples/speed"),
        help="the speed example (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--python", default=sys.executable, help="Python with torch and onnxruntime (default: this)"
    )
    parser.add_argument("--device", default="flex", help="device of our side (default: %(default)s)")
    parser.add_argument(
        "--against", metavar="DEVICE",
        help="a second device of our side, for the section `devices` (compiled in: --features ndarray)",
    )  # fmt: skip
    parser.add_argument("--threads", type=positive, default=2, help="of each side (default 2)")
    parser.add_argument("--rounds", type=positive, default=5, help="per case (default 5)")
    parser.add_argument(
        "--budget", type=float, default=0.3, help="seconds per model and round (default 0.3)"
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, metavar="SECTION",
        help=f"parts to run: {', '.join(SECTIONS)} (default: all; `devices` with --against)",
    )  # fmt: skip
    parser.add_argument(
        "--cases", nargs="+", type=case, metavar="B,T,I,H",
        help="these in place of the built-in cases, in the grid, the variants and for memory",
    )  # fmt: skip
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE",
        help=f"modes of the grid: {', '.join(MODES)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", nargs="+", type=positive, default=LINEARITY, metavar="T",
        help="lengths of the last table (default: 100 1000 10000)",
    )  # fmt: skip
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quiet", action="store_true", help="do not show what is running")
    args = parser.parse_args()
    if args.sections is None:
        args.sections = [name for name in SECTIONS if name != "devices" or args.against]
    if "devices" in args.sections and not args.against:
        parser.error("the section `devices` needs --against DEVICE")
    if shutil.which(args.program) is None:
        parser.error(
            f"there is no program {args.program}; "
            "run `cargo build --release --example speed` or name it with --program"
        )
    return args


def check_python(python):
    """One sentence for a missing library, before anything is timed."""
    test = [python, "-c", "import torch, onnx, onnxruntime, numpy"]
    result = subprocess.run(test, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        fail(f"{python} lacks a library ({reason}); install all with: {PIP}")


def main():
    args = arguments()
    alone = set(args.sections) <= {"linearity", "devices"}
    if not alone:
        check_python(args.python)
    session = Session(args)
    record = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "platform": platform.platform(),
        "command": " ".join(["compare.py", *sys.argv[1:]]),
        "threads": args.threads, "rounds": args.rounds, "budget": args.budget,
    }  # fmt: skip
    if "grid" in args.sections:
        record["grid"], (ours, peers) = grid(session, args.modes, args.cases)
        record["ours"], record["peers"] = ours, peers
    if "variants" in args.sections:
        record["variants"] = variants(session, args.cases)
    if "memory" in args.sections:
        record["memory"] = memory(session, (args.cases or [MEMORY])[0])
    if "linearity" in args.sections:
        record["linearity"] = linearity(session, args.lengths)
    if "devices" in args.sections:
        record["devices"] = devices(session, args.modes, args.cases)
    for side, start in [("ours", session.ours), ("peers", session.peers)]:
        # Versions and machine, where the grid has not told them.
        if side not in record and (side == "ours" or not alone):
            program = start()
            record[side] = program.hello
            program.close()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
