"""Counts instructions by callgrind: counts.py BINARY [--keep]. See scripts/counts."""

import json
import re
import subprocess
import sys
from pathlib import Path

FIGURES = Path(__file__).resolve().parents[1] / "figures" / "counts.json"
STEPS = {
    "decode": "a message event, from text to its checked fields",
    "append": "a place in the log of the embedded backplane",
    "feed": "append, worker and feed, one member: encoded and queued",
    "broadcast-100": "the same for a hundred members, all together",
}
FEW, MANY = 500, 1500


def instructions(binary, step, times):
    line = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, step, str(times)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"counts: {step} failed:\n{done.stderr}")
    return int(found.group(1))


def main():
    binary, *more = sys.argv[1:]
    before = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    now = {}
    print(f"{'step':<15}{'instructions':>14}{'kept':>12}{'change':>10}")
    for step, what in STEPS.items():
        now[step] = round((instructions(binary, step, MANY) - instructions(binary, step, FEW)) / (MANY - FEW))
        kept = before.get(step)
        change = f"{(now[step] / kept - 1) * 100:+.1f} %" if kept else "new"
        print(f"{step:<15}{now[step]:>14,}{kept or 0:>12,}{change:>10}   {what}", flush=True)
    if "--keep" in more:
        FIGURES.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
