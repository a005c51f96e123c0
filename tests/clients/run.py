#!/usr/bin/env python3
"""Real S3 clients against forebay: installs them, builds forebay, runs the suite.

  tests/clients/run.py                       all of it, some minutes
  tests/clients/run.py test_s3cmd test_tree  only these modules
  tests/clients/run.py --tree DIR --tree DIR test_tree
                                             the tree test with real trees instead of a made one

Needs cargo and python3-venv, and FUSE. The clients come from PyPI, as requirements.txt pins them, into a virtual
environment below cargo's target directory.
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def target_directory():
    text = subprocess.check_output(["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT)
    return Path(json.loads(text)["target_directory"])


def environment(target):
    """The python of a virtual environment that has exactly what requirements.txt names."""
    requirements = HERE / "requirements.txt"
    venv = target / "clients-venv"
    stamp = venv / "made-from"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.check_call([sys.executable, "-m", "venv", venv])
        pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", requirements]
        subprocess.check_call(pip)
        stamp.write_text(wanted)
    return venv / "bin/python"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", action="store_true", help="test the release build, not the debug build")
    parser.add_argument("--tree", action="append", default=[], metavar="DIR", help="a source tree for test_tree")
    parser.add_argument("--matrix", metavar="FILE", help="run a client_matrix.py against a server instead of the suite")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    profile = ["--release"] if args.release else []
    subprocess.check_call(["cargo", "build", "--quiet", "--package", "forebay", *profile], cwd=ROOT)
    target = target_directory()
    binary = target / ("release" if args.release else "debug") / "forebay"
    python = environment(target)
    trees = os.pathsep.join(os.path.abspath(tree) for tree in args.tree)
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(HERE / "resolver"), "FOREBAY_SUITE_BINARY": str(binary), "FOREBAY_SUITE_TREES": trees,
                "FOREBAY_SUITE_MATRIX": os.path.abspath(args.matrix) if args.matrix else ""}
    os.execve(python, [python, HERE / "suite.py", *args.modules], {**os.environ, **settings})


if __name__ == "__main__":
    main()
