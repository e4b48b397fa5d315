"""From records of ./dev compare to the Markdown table."""

import statistics

from compare_rows import AIMS, DECODE, DEEP, EXTRA, GEN, PROMPTS, required_ratio

PEER, ENGINES = "llama.cpp", ("kogia", "kogia int8")


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def extra_s(shallow, deep):
    """Seconds that a token takes longer at the greater depth."""
    return 1 / deep["decode"] - 1 / shallow["decode"]


def phases_of(records):
    """{phase: {round: (value, share)}} of one engine on one file; extra time is a value that should be small."""
    shallow = {r["round"]: r for r in records if r["depth"] == 0}
    deep = {r["round"]: r for r in records if r["depth"] == DEEP}
    phases = {f"prefill {n}": {i: (r["prefill"][str(n)], r["peak_share"].get(str(n))) for i, r in shallow.items()
                               if str(n) in r["prefill"]} for n in PROMPTS}
    phases[DECODE] = {i: (r["decode"], r["bandwidth_share"]) for i, r in shallow.items()}
    phases[f"decode {GEN} at {DEEP}"] = {i: (r["decode"], r["bandwidth_share"]) for i, r in deep.items()}
    extra = {}
    for i in shallow.keys() & deep.keys():
        seconds = extra_s(shallow[i], deep[i])
        if seconds <= 0:
            continue  # noise of a very small difference
        share = None
        if deep[i].get("cache_bytes_per_token"):
            n_bytes = deep[i]["cache_bytes_per_token"] - shallow[i]["cache_bytes_per_token"]
            share = 1e-9 * n_bytes / seconds / deep[i]["limits"]["read_gb_s"]
        extra[i] = (1e3 * seconds, share)
    phases[EXTRA] = extra
    return {phase: rounds for phase, rounds in phases.items() if rounds}


def ratio_of(phase, ours, theirs):
    """The median of the ratios of each round, in which both ran within minutes."""
    rounds = ours.keys() & theirs.keys()
    ratios = [theirs[i][0] / ours[i][0] if phase == EXTRA else ours[i][0] / theirs[i][0] for i in rounds]
    return median(ratios)


def spread(values):
    return f"{median(values):.4g} ({min(values):.4g}–{max(values):.4g})"


def verdict_on(aim, ratio, share, required):
    words = []
    if aim is not None:
        words.append(f"{aim.text()}: {'met' if aim.met(ratio, share) else 'missed'}")
    if ratio is not None and ratio < required:
        words.append("**behind**")
    return ", ".join(words)


def verdict(file_name, phase, engine, ratio, share):
    return verdict_on(AIMS.get((file_name, phase, engine)), ratio, share, required_ratio(file_name, phase))


def file_rows(file_name, records):
    """One table row per phase and engine."""
    by_engine = {engine: phases_of([r for r in records if r["engine"] == engine]) for engine in (PEER, *ENGINES)}
    rows = []
    for phase in dict.fromkeys(phase for engine in ENGINES for phase in by_engine[engine]):
        theirs = by_engine[PEER].get(phase, {})
        for engine in ENGINES:
            ours = by_engine[engine].get(phase)
            if not ours:
                continue
            ratio, share = ratio_of(phase, ours, theirs), median([s for _, s in ours.values()])
            compute = next(r["compute"] for r in records if r["engine"] == engine)
            rows.append([file_name, phase, compute, spread([v for v, _ in ours.values()]),
                         spread([v for v, _ in theirs.values()]) if theirs else "–",
                         f"{ratio:.2f}" if ratio is not None else "–", f"{share:.0%}" if share is not None else "–",
                         verdict(file_name, phase, engine, ratio, share)])
    return rows


def limits_line(file_name, records):
    ours = [r for r in records if r["engine"] != PEER]
    limits = {name: median([r["limits"].get(name) for r in ours])
              for name in ("read_gb_s", "f32_gflop_s", "bf16_gflop_s", "int16_gop_s", "int8_gop_s")}
    loads = [r["load"] for r in records]
    number = lambda name: "none" if limits[name] is None else f"{limits[name]:.4g}"
    return (f"- {file_name}: read {number('read_gb_s')} GB/s, f32 {number('f32_gflop_s')}, bf16 {number('bf16_gflop_s')}, "
            f"int16 {number('int16_gop_s')}, int8 {number('int8_gop_s')} G(FL)OP/s; "
            f"{len({r['round'] for r in records})} rounds, load average {min(loads):.1f} to {max(loads):.1f}")


def markdown(file_names, records, heading):
    """The whole page; files without a record of Kogia are left out."""
    by_file = {name: [r for r in records if r["file"] == name and r["busy"] == 0] for name in file_names}
    by_file = {name: rs for name, rs in by_file.items() if any(r["engine"] != PEER for r in rs)}
    lines = [heading, "",
             "| model | | arithmetic | Kogia | llama.cpp | ratio | of limit | aim |", "|---|---|---|---|---|---|---|---|"]
    for name, rs in by_file.items():
        lines += ["| " + " | ".join(row) + " |" for row in file_rows(name, rs)]
    lines += ["", "Median tok/s (least–most) of the rounds, each engine once a round, in changing order; ratio: the median of "
              "those of each round (of extra time: how many times less). Share: of the peak of the arithmetic (prefill), of "
              "the read bandwidth over weights (decode) or over the cache (extra time per token).", "",
              "The machine, as measured beside:", ""]
    lines += [limits_line(name, rs) for name, rs in by_file.items()]
    return "\n".join(lines) + "\n"


# --- a loaded machine --------------------------------------------------------------------------------


def busy_rows(file_name, engine, records, n_busy, fair):
    """Each phase alone on the machine and beside busy programs; medians of the rounds."""
    n = str(PROMPTS[-1])
    phases = [(f"prefill {n}", lambda r: r["prefill"][n], lambda r: r["prefill_per_cpu"].get(n)),
              ("decode", lambda r: r["decode"], lambda r: r["decode_per_cpu"])]
    alone, beside = ([r for r in records if r["busy"] == busy and r["depth"] == 0] for busy in (0, n_busy))
    if not alone or not beside:
        return []
    rows = []
    for phase, rate, per_cpu in phases:
        idle, loaded = median([rate(r) for r in alone]), median([rate(r) for r in beside])
        cpu_idle, cpu_loaded = median([per_cpu(r) for r in alone]), median([per_cpu(r) for r in beside])
        rows.append([file_name, phase, engine, f"{idle:.4g}", f"{loaded:.4g}", f"{loaded / idle / fair:.0%}",
                     f"{cpu_loaded / cpu_idle:.0%}" if cpu_idle and cpu_loaded else "–"])
    return rows


def busy_markdown(file_names, records, heading, n_busy, n_threads, n_cores):
    # Every program that wants a core gets an equal part.
    fair = min(1.0, n_threads * n_cores / (n_threads + n_busy) / min(n_threads, n_cores))
    lines = [f"{heading}; {n_busy} busy processes beside, so a fair share is {fair:.0%} of idle speed", "",
             "| model | | engine | idle tok/s | loaded tok/s | of its share | tok per CPU-second, of idle |",
             "|---|---|---|---|---|---|---|"]
    for name in file_names:
        for engine in (*ENGINES, PEER):
            mine = [r for r in records if r["file"] == name and r["engine"] == engine]
            lines += ["| " + " | ".join(row) + " |" for row in busy_rows(name, engine, mine, n_busy, fair)]
    return "\n".join(lines) + "\n"
