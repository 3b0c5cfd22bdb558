#!/usr/bin/env python3
"""doctor.py - recall and false alarms of `ashlar doctor`.

  doctor.py ASHLAR --seed N [--each 8] [--models FILE...] [--good FILE...] [--imatrix MODEL=FILE...] [-o RESULT.json]

Plants --each faults of every kind of tools/plant_faults.py into good files chosen by the seed, one fault a file, and examines each. A fault is found when the
examination has an error that the good file has not (for faults that only a warning is for, when it has that warning). Then all good files: an error or a
warning in one is a false alarm; files of one model are one group, as they are not independent. Intervals are Wilson's, 95 %.

Good files are tests/data and those given: --models are real ones (faults are planted into them, and they are checked), --good are checked only.
Kinds that no file shows by itself are planted and listed, and not counted."""
import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import plant_faults as pf  # noqa: E402


def wilson(k, n, z=1.959964):
    if not n:
        return (0.0, 1.0)
    p, d = k / n, 1 + z * z / n
    m, h = (p + z * z / (2 * n)) / d, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return (max(0.0, m - h), min(1.0, m + h))


def examine(ashlar, path, imatrix=None, quick=False):
    cmd = [ashlar, "doctor", path, "--json"] + (["--imatrix", imatrix] if imatrix else []) + (["--quick"] if quick else [])
    start = time.time()
    p = subprocess.run(cmd, capture_output=True, text=True)
    if p.returncode not in (0, 1):
        raise SystemExit("%s: exit %d: %s" % (" ".join(cmd), p.returncode, p.stderr))
    j = json.loads(p.stdout)
    return {"ill": j["ill"], "ran": j["ran"], "nll": j["nats_per_token"], "seconds": time.time() - start,
            "errors": sorted({f["check"] for f in j["findings"] if f["severity"] == "error"}),
            "warnings": sorted({f["check"] for f in j["findings"] if f["severity"] == "warning"})}


def group_of(path, models):
    """The model a file is of: golden models by folder, real ones by the first word of their name."""
    rel = os.path.relpath(path, os.path.join(ROOT, "tests/data"))
    if not rel.startswith(".."):
        p = rel.split(os.sep)
        if p[1] == "quant-models":
            return "golden quant-models"
        if p[0] == "tokenizers":
            return "vocabulary " + p[-1][:-5]
        return p[0] + " " + p[1]
    name = os.path.basename(path).lower()
    for m in models:
        if m in name:
            return m
    return name.split("-")[0]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("ashlar")
    a.add_argument("--seed", required=True)
    a.add_argument("--each", type=int, default=8)
    a.add_argument("--kinds", default="")
    a.add_argument("--models", nargs="*", default=[], help="trained models of 4,096 words or more")
    a.add_argument("--good", nargs="*", default=[])
    a.add_argument("--imatrix", nargs="*", default=[], help="MODEL.gguf=IMATRIX")
    a.add_argument("--group", nargs="*", default=["smollm2", "gemma3", "minilm"], help="words in file names that say which model it is")
    a.add_argument("--no-good", action="store_true")
    a.add_argument("-o", dest="out")
    o = a.parse_args()
    data = os.path.join(ROOT, "tests/data")
    small = sorted(os.path.join(d, f) for d, _, fs in os.walk(data) for f in fs if f.endswith(".gguf") and "lora" not in d and "fuzz" not in d)
    adapters = sorted(os.path.join(d, f) for d, _, fs in os.walk(data) for f in fs if f.endswith(".gguf") and "lora" in d)
    pairs = [x.split("=", 1) for x in o.imatrix]
    tmp = tempfile.mkdtemp(prefix="doctor")
    rows, base = [], {}

    def good(path, im=None):
        if (path, im) not in base:
            base[path, im] = examine(o.ashlar, path, im)
        return base[path, im]

    def sources(name, needs, rng):
        if needs == "imatrix":
            c = pairs[:]
        elif needs in ("run", "trained", "template"):
            c = o.models[:]
        elif needs == "trained f16":
            c = [m for m in o.models if "dg" in m or "f16" in m.lower()]
        else:
            c = small[:] if rng.random() < 0.85 or not o.models else o.models[:]
            rng.shuffle(c)
            c += small
            return c
        rng.shuffle(c)
        return c

    todo = [(k, v, True) for k, v in pf.KINDS.items()] + [(k, v, False) for k, v in pf.UNSEEN.items()]
    for name, (_, text, needs), counted in todo:
        if o.kinds and name not in o.kinds.split(","):
            continue
        for i in range(o.each if counted else max(2, o.each // 2)):
            rng = random.Random("%s/%s/%d" % (o.seed, name, i))
            for s in sources(name, needs, rng):
                src, im = s if needs == "imatrix" else (s, None)
                out = os.path.join(tmp, "ill.gguf")
                try:
                    what, path, bad_im = pf.plant(src, out, name, "%s/%d" % (o.seed, i), im)
                except pf.No:
                    continue
                r = examine(o.ashlar, path, bad_im)
                g = good(src, None)
                new = [e for e in r["errors"] if e not in g["errors"]]
                if name.startswith("importance"):
                    new += [w for w in r["warnings"] if w not in g["warnings"]]
                rows.append({"kind": name, "counted": counted, "source": src, "what": what, "found": bool(new), "by": new, "warnings": r["warnings"], "nll": r["nll"],
                             "good_nll": g["nll"], "seconds": r["seconds"]})
                if not new and counted:
                    print("MISSED %s in %s: %s (nll %.2f, before %.2f; warnings %s)" % (name, os.path.relpath(src, ROOT), what, r["nll"], g["nll"], r["warnings"]), flush=True)
                for f in os.listdir(tmp):
                    os.remove(os.path.join(tmp, f))
                break
            else:
                print("no file here can have %s" % name, flush=True)
    os.rmdir(tmp)

    def table(counted):
        n_all = k_all = 0
        for name, (_, text, needs), c in todo:
            r = [x for x in rows if x["kind"] == name]
            if c != counted or not r:
                continue
            k = sum(x["found"] for x in r)
            by = {}
            for x in r:
                for e in x["by"][:1]:
                    by[e] = by.get(e, 0) + 1
            n_all, k_all = n_all + len(r), k_all + k
            print("%-20s %3d/%-3d  %3.0f %% [%3.0f, %3.0f]  %s" % ((name, k, len(r), 100 * k / len(r)) + tuple(100 * x for x in wilson(k, len(r))) +
                  (", ".join("%s %d" % e for e in sorted(by.items(), key=lambda e: -e[1])),)))
        return k_all, n_all

    print("\nseed %s, found per kind:" % o.seed)
    k, n = table(True)
    kinds = {x["kind"] for x in rows if x["counted"]}
    whole = sum(all(x["found"] for x in rows if x["kind"] == kd) for kd in kinds)
    if n:
        print("all: %d of %d faults of %d kinds, %.1f %% [%.1f, %.1f]; %d kinds without a miss" % ((k, n, len(kinds), 100 * k / n) + tuple(100 * x for x in wilson(k, n)) + (whole,)))
    print("\nnot to be seen without the source (not counted):")
    table(False)
    alarms = {}
    if not o.no_good:
        files = small + adapters + o.models + [f for f in o.good if f not in o.models]
        for f in files:
            r = good(f)
            alarms.setdefault(group_of(f, o.group), []).append((f, r))
        print("\ngood files, by model:")
        bad_groups = warn_groups = bad = 0
        for grp, fs in sorted(alarms.items()):
            e, w = sum(bool(r["errors"]) for _, r in fs), sum(bool(r["warnings"]) for _, r in fs)
            bad, bad_groups, warn_groups = bad + e, bad_groups + bool(e), warn_groups + bool(w)
            print("%-28s %3d files, %d with errors, %d with warnings" % (grp, len(fs), e, w))
            for f, r in fs:
                if r["errors"] or r["warnings"]:
                    print("    %s: %s" % (f, ", ".join(r["errors"] + r["warnings"])))
        ng, nf = len(alarms), sum(len(f) for f in alarms.values())
        print("false alarms: %d of %d models, %.1f %% [%.1f, %.1f]; %d of %d files; warnings in %d models" % ((bad_groups, ng, 100 * bad_groups / ng) +
              tuple(100 * x for x in wilson(bad_groups, ng)) + (bad, nf, warn_groups)))
    if o.out:
        with open(o.out, "w") as f:
            json.dump({"seed": o.seed, "faults": rows, "good": [dict(r, file=os.path.basename(p), group=g) for g, fs in alarms.items() for p, r in fs]}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
