"""Runs the cases of a suite and tells of each, as `tests/clients/run` counts them."""

import time
import traceback


def run(suite, cases, call=lambda case: case()):
    """The exit code: zero if no case failed."""
    passed = failed = 0
    for case in cases:
        name = case.__name__.replace("_", " ")
        start = time.monotonic()
        try:
            call(case)
            passed += 1
            print(f"ok {name} ({(time.monotonic() - start) * 1000:.0f} ms)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    print(f"{suite}: {passed} passed, {failed} failed")
    return 0 if failed == 0 else 1
