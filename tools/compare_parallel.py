"""Many sequences that decode together: what is run, and the table. A part of ./dev compare --parallel."""

import json

from compare_rows import BATCHES, GEN, PARALLEL_AIMS, PARALLEL_PROMPT
from compare_table import ENGINES, PEER, limits_line, median, ratio_of, spread, verdict_on

LIST = ",".join(map(str, BATCHES))
# As many tokens as llama.cpp's cache holds: all sequences of the largest batch, to their end.
CONTEXT = max(BATCHES) * (PARALLEL_PROMPT + GEN)


def llama_command(program, model, threads):
    return [program, "-m", model, "-t", threads, "-c", CONTEXT, "-npp", PARALLEL_PROMPT, "-ntg", GEN, "-npl", LIST,
            "--output-format", "jsonl"]


def read_llama(text):
    """{sequences: tok/s} from what llama-batched-bench prints; around its lines of JSON others may stand."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {str(row["pl"]): row["speed_tg"] for row in rows}


KOGIA_FLAGS = ["--prompt", "0", "--gen", GEN, "--depth", PARALLEL_PROMPT, "--batch", LIST]


def read_kogia(cases):
    """What a record has of the cases of `kogia bench --json`, by number of sequences."""
    by_batch = lambda field: {str(c["batch"]): c[field] for c in cases}
    return {"decode": by_batch("decode_tok_s"), "bandwidth_share": by_batch("bandwidth_share"),
            "peak_share": by_batch("decode_peak_share"), "step_bytes": by_batch("weight_bytes_per_token"),
            "compute": cases[-1]["compute"]}


def shares(records, batch):
    """Medians: of the bandwidth, of the peak."""
    return [median([r[field].get(batch) for r in records]) for field in ("bandwidth_share", "peak_share")]


def row(file_name, batch, engine, ours, theirs):
    rounds = lambda records: {r["round"]: (r["decode"][batch], None) for r in records if batch in r["decode"]}
    mine, peers = rounds(ours), rounds(theirs)
    if not mine:
        return None
    ratio = ratio_of("decode", mine, peers)
    percent = lambda share: "–" if share is None else f"{share:.0%}"
    bandwidth, peak = shares(ours, batch)
    aim = PARALLEL_AIMS.get((file_name, int(batch), engine))
    share = max(  # of the bound: a step takes at least as long as the slower of the two
        (s for s in (bandwidth, peak) if s is not None), default=None)
    step_gb = 1e-9 * int(batch) * median([r["step_bytes"][batch] for r in ours])
    return [file_name, batch, ours[0]["compute"], spread([v for v, _ in mine.values()]),
            spread([v for v, _ in peers.values()]) if peers else "–", "–" if ratio is None else f"{ratio:.2f}",
            f"{step_gb:.3g}", percent(bandwidth), percent(peak), verdict_on(aim, ratio, share, 1.0)]


def markdown(file_names, records, heading):
    lines = [f"{heading}: {PARALLEL_PROMPT} tokens in each sequence's cache, then {GEN} decoded by all together", "",
             "| model | sequences | arithmetic | Kogia | llama.cpp | ratio | GB a step | of bandwidth | of peak | aim |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    limits = []
    for name in file_names:
        mine = [r for r in records if r["file"] == name]
        if not any(r["engine"] in ENGINES for r in mine):
            continue
        theirs = [r for r in mine if r["engine"] == PEER]
        for batch in map(str, BATCHES):
            for engine in ENGINES:
                cells = row(name, batch, engine, [r for r in mine if r["engine"] == engine], theirs)
                if cells:
                    lines.append("| " + " | ".join(cells) + " |")
        limits.append(limits_line(name, mine))
    lines += ["", "Median tok/s of all sequences together (least–most) of the rounds, each engine once a round, in changing "
              "order; ratio: the median of those of each round. A step reads the weights that its tokens meet, each once: of "
              "routed experts those that it touched, as counted. Its least time is the greater of those bytes ÷ the read "
              "bandwidth and of 2 · active parameters · sequences ÷ the peak of the arithmetic; attention is in neither.", "",
              "The machine, as measured beside:", "", *limits]
    return "\n".join(lines) + "\n"
