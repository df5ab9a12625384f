"""All benchmarks, one after the other: tables here, numbers in outputs/bench/results.json."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "outputs" / "bench"
NAMES = (
    *("unet_speed", "step_overhead", "safety_overhead", "loader_speed"),
    *("evaluation_speed", "scaling", "latent_cost"),
)


def main() -> None:
    results = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    for name in NAMES:
        print(f"\n== {name} ==", flush=True)
        out = OUT / f"{name}.json"
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--out", str(out)], check=True)
        results[name] = json.loads(out.read_text())
    (OUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {OUT / 'results.json'}")


if __name__ == "__main__":
    main()
