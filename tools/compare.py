#!/usr/bin/env python3
"""Kogia and llama.cpp by turns on the same files and machine; ./dev compare --help says how to use it."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import compare_parallel
import compare_rows
import compare_table
from compare_rows import DEEP, GEN, PROMPTS
from compare_table import ENGINES, PEER


class Failed(Exception):
    """A program that did not do what it was asked."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command):
    """Standard output; what a failed program said last is in the exception."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{pathlib.Path(str(command[0])).name}: exit code {done.returncode}\n{done.stderr[-1500:].rstrip()}")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


# --- one engine on one file --------------------------------------------------------------------------


def shape(task):
    """--prompt and --gen: at a depth decode alone, beside busy processes less of both, for that takes long."""
    if task["busy"]:
        return str(PROMPTS[-1]), GEN // 4
    return ",".join(map(str, PROMPTS)) if task["depth"] == 0 else "0", GEN


def bench_llama(arguments, model, task):
    prompts, gen = shape(task)
    rows = json.loads(run([arguments.llama_bench, "-m", model, "-t", arguments.threads, "-r", arguments.repeat,
                           "-p", prompts, "-n", gen, "-d", task["depth"], "-o", "json",
                           *(["--no-warmup"] if task["busy"] else [])]))
    rate = lambda row: compare_table.median(row["samples_ts"])
    return {"prefill": {str(row["n_prompt"]): rate(row) for row in rows if row["n_gen"] == 0},
            "decode": next(rate(row) for row in rows if row["n_prompt"] == 0),
            "compute": "own", "peak_share": {}, "bandwidth_share": None, "limits": None,
            "prefill_per_cpu": {}, "decode_per_cpu": None}


def bench_kogia(arguments, model, task, flags):
    prompts, gen = shape(task)
    machine, *cases = json_lines(run(
        [arguments.kogia, "bench", model, "--threads", arguments.threads, "--repeat", arguments.repeat, "--json",
         "--quiet", "--prompt", prompts, "--gen", gen, "--depth", task["depth"], *flags, *arguments.flags]))
    of_prompt = lambda field: {str(c["prompt"]): c[field] for c in cases if c["prefill_tok_s"] is not None}
    last = cases[-1]
    return {"prefill": of_prompt("prefill_tok_s"), "decode": last["decode_tok_s"], "compute": last["compute"],
            "peak_share": of_prompt("peak_share"), "bandwidth_share": last["bandwidth_share"],
            "prefill_per_cpu": of_prompt("prefill_tok_s_per_cpu"), "decode_per_cpu": last["decode_tok_s_per_cpu"],
            "weight_bytes_per_token": last["weight_bytes_per_token"],
            "cache_bytes_per_token": last["cache_bytes_per_token"], "limits": machine}


def bench_parallel(arguments, model, task, flags):
    if task["engine"] == PEER:
        return {"decode": compare_parallel.read_llama(run(compare_parallel.llama_command(
            arguments.llama_batched_bench, model, arguments.threads))), "limits": None}
    machine, *cases = json_lines(run(
        [arguments.kogia, "bench", model, "--threads", arguments.threads, "--repeat", arguments.repeat, "--json",
         "--quiet", *compare_parallel.KOGIA_FLAGS, *flags, *arguments.flags]))
    return {**compare_parallel.read_kogia(cases), "limits": machine}


def bench(arguments, model, task):
    flags = ["--compute", "int8"] if task["engine"] == "kogia int8" else []
    if arguments.parallel:
        return bench_parallel(arguments, model, task, flags)
    if task["engine"] == PEER:
        return bench_llama(arguments, model, task)
    return bench_kogia(arguments, model, task, flags)


def in_words(measured):
    """tok/s of a run."""
    if isinstance(measured["decode"], dict):
        return "".join(f"  {n}: {rate:.1f}" for n, rate in measured["decode"].items())
    prefill = "".join(f"  prefill {n} {rate:.1f}" for n, rate in measured["prefill"].items())
    return f"{prefill}  decode {measured['decode']:.1f}"


# Ends with whoever started it, however that ended.
BUSY_LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000): pass
"""


@contextlib.contextmanager
def busy_processes(n):
    """So many programs that want a core each."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


# --- results that outlive a stop ---------------------------------------------------------------------


class Results:
    """JSON lines, one a run of an engine. Those of other programs or settings stay in the file and do not count."""

    def __init__(self, path, key):
        self.path, self.key, self.records = path, key, []
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a stop
                say(f"{path}: line {number} is damaged and does not count")
                continue
            if record.get("key") == key:
                self.records.append(record)
        if lines and not path.read_text().endswith("\n"):
            with path.open("a") as file:
                file.write("\n")

    def find(self, **what):
        return next((r for r in self.records if all(r.get(k) == v for k, v in what.items())), None)

    def add(self, record):
        record["key"] = self.key
        self.records.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def forget(self):
        """Takes the records of this key out of the file."""
        self.records = []
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if f'"key": {json.dumps(self.key)}' not in line]
            self.path.write_text("".join(line + "\n" for line in kept))


def key_of(arguments):
    """Equal programs and settings: results that may stand in one table."""
    digest = hashlib.sha256()
    for program in (arguments.kogia, arguments.llama_batched_bench if arguments.parallel else arguments.llama_bench):
        digest.update(hashlib.sha256(program.read_bytes()).digest())
    sizes = (compare_rows.PARALLEL_PROMPT, compare_rows.BATCHES) if arguments.parallel else (PROMPTS, DEEP)
    digest.update(json.dumps([arguments.threads, arguments.repeat, arguments.flags, GEN, *sizes]).encode())
    return digest.hexdigest()[:16]


# --- the whole ---------------------------------------------------------------------------------------


def engines_of(file):
    return ([PEER] if file.peer else []) + [ENGINES[0]] + ([ENGINES[1]] if file.blocks else [])


def missing_runs(arguments, file, results):
    """What is still to do: by turns, and each round begins with another engine."""
    settings = [{"depth": compare_rows.PARALLEL_PROMPT if arguments.parallel else 0, "busy": 0}]
    if arguments.busy:
        settings.append({"depth": 0, "busy": arguments.busy})
    elif file.deep and not arguments.parallel:
        settings.append({"depth": DEEP, "busy": 0})
    todo = []
    for number in range(1, arguments.rounds + 1):
        engines = engines_of(file)
        first = number % len(engines)
        for setting in settings:
            runs = [{"file": file.name, "engine": engine, "round": number, **setting}
                    for engine in engines[first:] + engines[:first]]
            todo += [run for run in runs if results.find(**run) is None]
    return todo


def make_model(arguments, file):
    if file.path is not None:
        return file.path
    name, weights = file.synth
    model = arguments.work / "models" / (file.name if weights == "FP8" else file.name + ".gguf")
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        say(f"making {model.name}")
        run([arguments.kogia, "synth", name, "--weights", weights, "-o", model, "--quiet"])
    return model


def delete(model):
    shutil.rmtree(model) if model.is_dir() else model.unlink(missing_ok=True)


def compare_file(arguments, file, results):
    """Runs what is missing of one file; returns whether all of it worked."""
    todo = missing_runs(arguments, file, results)
    if not todo:
        return True
    failed = set()
    try:
        model = make_model(arguments, file)
        for task in todo:
            kind = (task["engine"], task["depth"], task["busy"])
            if kind in failed:
                continue
            load = os.getloadavg()[0]
            try:
                with busy_processes(task["busy"]):
                    measured = bench(arguments, model, task)
            except Failed as error:
                say(f"{file.name}, {task['engine']}, depth {task['depth']}: {error}")
                failed.add(kind)
                continue
            results.add({**task, "load": load, "at": time.strftime("%Y-%m-%d %H:%M"), **measured})
            beside = f"  {task['busy']} busy" if task["busy"] else ""
            say(f"{file.name}  round {task['round']}  depth {task['depth']}{beside}  {task['engine']:10}"
                f"{in_words(measured)} tok/s")
    except Failed as error:
        say(f"{file.name}: {error}")
        failed.add(file.name)
    finally:
        if file.path is None and not arguments.keep:
            for left in (arguments.work / "models").glob(file.name + "*"):
                if left.name == file.name or left.name.startswith(file.name + "."):  # packed weights beside it too
                    delete(left)
    return not failed


def own_file(arguments, path):
    """A file of the user's: its name is its row."""
    weights = json.loads(run([arguments.kogia, "inspect", path, "--json"]))["weights"]["dtypes"]
    return compare_rows.File(path.stem, path=path, blocks=any(dtype.startswith("q") for dtype in weights),
                             peer=path.suffix == ".gguf", deep=arguments.deep)


def choose_files(arguments, parser):
    if arguments.files:
        missing = [path for path in arguments.files if not path.exists()]
        if missing:
            parser.error(f"{missing[0]}: no such file")
        return [own_file(arguments, path) for path in arguments.files]
    every = (compare_rows.parallel_files if arguments.parallel else compare_rows.files)(arguments.smollm)
    if not arguments.rows:
        return every
    for word in arguments.rows.split(","):
        if not word or not any(word in file.name for file in every):
            parser.error(f"--rows: nothing is called '{word}'; there are {', '.join(file.name for file in every)}")
    return [file for file in every if any(word in file.name for word in arguments.rows.split(","))]


def parse(argv):
    flags = []
    if "--" in argv:
        at = argv.index("--")
        argv, flags = argv[:at], argv[at + 1:]
    parser = argparse.ArgumentParser(prog="./dev compare", add_help=False, usage="./dev compare --help explains it")
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE.gguf")
    for flag in ("--kogia", "--llama-bench", "--llama-batched-bench", "--smollm", "--work"):
        parser.add_argument(flag, required=True, type=pathlib.Path)
    parser.add_argument("--rows", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0)
    for flag in ("--parallel", "--deep", "--keep", "--fresh", "--table"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args(argv)
    arguments.flags = flags
    for flag in ("threads", "rounds", "repeat"):
        if getattr(arguments, flag) < 1:
            parser.error(f"--{flag} is {getattr(arguments, flag)}, expected 1 or more")
    if not 0 <= arguments.busy <= 1000:
        parser.error(f"--busy is {arguments.busy}, expected 0 to 1000")
    if arguments.parallel and (arguments.busy or arguments.deep):
        parser.error("--parallel goes with neither --busy nor --deep")
    return arguments, parser


def main():
    arguments, parser = parse(sys.argv[1:])
    files = choose_files(arguments, parser)
    results = Results(arguments.work / ("parallel.jsonl" if arguments.parallel else "results.jsonl"), key_of(arguments))
    if arguments.fresh:
        results.forget()
    good = arguments.table or all([compare_file(arguments, file, results) for file in files])
    machine = next((r["limits"] for r in results.records if r["limits"]), None)
    if machine is None:
        say("nothing has been measured with these programs and settings")
        return 1
    heading = (f"{machine['processor'] or 'a processor'}, {arguments.threads} threads, {machine['device']}, "
               f"{results.records[-1]['at']}")
    names = [file.name for file in files]
    table = "table.md"
    if arguments.parallel:
        table, page = "parallel.md", compare_parallel.markdown(names, results.records, heading)
    elif arguments.busy:
        cores = len(os.sched_getaffinity(0))
        table = "busy.md"
        page = compare_table.busy_markdown(names, results.records, heading, arguments.busy, arguments.threads, cores)
    else:
        page = compare_table.markdown(names, results.records, heading)
    (arguments.work / table).write_text(page)
    print(page, end="")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        sys.exit(1)
    except Failed as failure:
        say(f"error: {failure}")
        sys.exit(1)
