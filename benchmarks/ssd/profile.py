"""`python -m benchmarks.ssd.profile`: what measuring.ssd was called before it had a room of its own, and is in older notes."""

import runpy

if __name__ == "__main__":
    runpy.run_module("measuring.ssd", run_name="__main__", alter_sys=True)
