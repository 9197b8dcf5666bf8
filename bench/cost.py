"""What a call costs: the façade, plain boto3, aiobotocore and a façade in Go side by side. `make bench` runs it.

It writes results.md and results.svg, and what both were made from to build/bench/measured.json. It ends with 0 if it could
measure; a target that is missed is reported and no failure of the program. results.md says how it measures.
"""

import platform
import subprocess
import sys
from importlib.metadata import version

from bench.contenders import bench_python, ring
from bench.figures import QUICK, ROUTES, Plan, measure
from bench.processes import BENCH, QUICK_RESULTS, begin
from bench.report import report
from bench.upstream import MissingError

_PACKAGES = ("grpcio", "opentelemetry-sdk")


def main() -> int:
    """Measure, print and write, and return the exit status."""
    options = begin(__doc__)
    plan = QUICK if options.quick else Plan()
    try:
        python = bench_python()
        with ring(ROUTES, peer=True) as contenders:
            measured = measure(contenders, plan)
    except MissingError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    measured.versions |= {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    QUICK_RESULTS.mkdir(parents=True, exist_ok=True)
    data = QUICK_RESULTS / "measured.json"
    measured.write(data)
    text = report(measured, plan)
    print(text)
    (options.results / "results.md").write_text(text)
    plot = (python, "-m", "bench.plot", data, options.results / "results.svg")
    subprocess.run(plot, cwd=BENCH.parent, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
