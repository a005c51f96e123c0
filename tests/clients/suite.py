"""The inside of run.py: one server, all tests, then a look at what they left behind."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import harness


#: What the matrix calls our clients; it knows more, which are not installed.
MATRIX_CLIENTS = ["aws-cli", "boto3", "s3cmd", "s5cmd", "rclone", "minio-py", "s3torch"]
#: Presigned with Signature Version 2, which is refused on purpose: s3cmd knows no other, and the aws CLI uses it
#: in Amazon's oldest region unless its settings say `signature_version = s3v4`, which those of the matrix don't.
MATRIX_REFUSED = {("aws-cli", "presign"), ("s3cmd", "presign")}


def run_tests(names):
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    bad = len(result.failures) + len(result.errors)
    return result.wasSuccessful(), f"{result.testsRun} tests, {bad} failed, {len(result.skipped)} skipped"


def run_matrix(program, server):
    """Real clients by operations; its exit status does not tell, so its table is looked at."""
    table = Path(server.home) / "matrix.json"
    subprocess.check_call([sys.executable, program, "--endpoint", server.endpoint, "--access", harness.ACCESS_KEY, "--secret", harness.SECRET_KEY,
                           "--only", ",".join(MATRIX_CLIENTS), "--json", table], env=harness.clean_environment())
    cells = {(client, call): cell[0] for client, row in json.loads(table.read_text()).items() for call, cell in row.items()}
    failed = sorted(cell for cell, outcome in cells.items() if outcome == "FAIL" and cell not in MATRIX_REFUSED)
    return not failed, f"matrix of {len(cells)} cells, failed {failed}, refused on purpose {sorted(MATRIX_REFUSED)}"


def main():
    here = Path(__file__).resolve().parent
    home = tempfile.mkdtemp(prefix="forebay-clients-")
    server = harness.ClientTest.server = harness.Server(os.environ["FOREBAY_SUITE_BINARY"], home)
    matrix = os.environ.get("FOREBAY_SUITE_MATRIX")
    try:
        if matrix:
            good, summary = run_matrix(matrix, server)
        else:
            good, summary = run_tests(sys.argv[1:] or sorted(path.stem for path in here.glob("test_*.py")))
    finally:
        wrong = server.stop()
    for what in wrong:
        print(f"AFTER THE TESTS: {what}")
    if good and not wrong:
        shutil.rmtree(home)
    print(f"clients: {summary}; {'server or store NOT sound' if wrong else 'store sound'}")
    sys.exit(0 if good and not wrong else 1)


if __name__ == "__main__":
    main()
