"""Print `N passed, M failed` from the JUnit reports in a folder; exit 1 unless something passed and nothing failed.

For each suite the folder holds NAME.xml (pytest's report) and NAME.exit (its exit status). A suite that ended badly
without reporting a failure (killed, or not even started) counts as one failed test.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def count(report: Path) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped according to one report."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed += 1
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(folder: Path) -> int:
    """Add up the suites in `folder` and print the line."""
    total_passed = total_failed = total_skipped = 0
    for status in sorted(folder.glob("*.exit")):
        report = status.with_suffix(".xml")
        passed, failed, skipped = count(report) if report.exists() else (0, 0, 0)
        code = int(status.read_text())
        if code == 1 and not failed:
            failed = 1
            print(f"{status.stem}: pytest ended with status 1 and reported no failed test")
        elif code not in (0, 1, 5):  # 1: tests failed; 5: no test was selected
            failed += 1
            print(f"{status.stem}: pytest ended with status {code}: it was broken off, some tests may not have run")
        total_passed += passed
        total_failed += failed
        total_skipped += skipped
    if not total_passed and not total_failed:
        print(f"no test ran ({folder} holds no report of any)")
        total_failed = 1
    if total_skipped:
        print(f"skipped: {total_skipped}")
    print(f"{total_passed} passed, {total_failed} failed")
    return int(total_failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
