"""A server with both faces, and what every client's test needs: a bucket, files, and a way to run the client."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request
import uuid
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
ACCESS_KEY = "FBCLIENTSUITE"
SECRET_KEY = "client-suite-secret"
#: Names below it are buckets of the server, and its address for every Python here (resolver/).
DOMAIN = "s3.forebay.test"
SMALL = random.Random(1).randbytes(4097)
#: Three parts of 5 MiB, the last one shorter.
BIG = random.Random(2).randbytes(12 * 1024 * 1024 + 17)
#: Names that some client, signature or XML could get wrong.
NAMES = ["plain", "a b", "c+d&e=f", "ünï☺", "50%", "per%20cent", "#hash", "q?m", "'quote\"", "dir/sub dir/x", "~tilde", "semi;colon", "a,b", "[br](a)", "<x>"]


def clean_environment():
    """The environment without anyone's S3 settings; the venv's programs come first."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOREBAY_", "RCLONE_", "S3_"))}
    keep["PATH"] = os.path.dirname(sys.executable) + os.pathsep + keep["PATH"]
    return keep | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true",
                   "AWS_PAGER": "", "LC_ALL": "C.UTF-8"}


class Server:
    """`forebay serve` on a free port, with a mount; stopped and checked at the end."""

    def __init__(self, binary, home):
        self.binary, self.home = binary, Path(home)
        self.data, self.mnt = self.home / "data", self.home / "mnt"
        self.log = open(self.home / "server.log", "wb")
        environment = clean_environment() | {"FOREBAY_ROOT_ACCESS_KEY": ACCESS_KEY, "FOREBAY_ROOT_SECRET_KEY": SECRET_KEY}
        command = [binary, "serve", "--data", self.data, "--listen", "127.0.0.1:0", "--mount", self.mnt,
                   "--base-domain", DOMAIN]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.endpoint = None
        for line in self.process.stdout:
            found = re.search(r"http://\S+", line)
            self.endpoint = self.endpoint or (found and found[0])
            if line.startswith("ready"):
                return
        raise SystemExit(f"forebay did not start\n{(self.home / 'server.log').read_text()}")

    def stop(self):
        """Stops it and returns what is wrong with how it ended and with what it leaves behind."""
        wrong = []
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = f"killed after 120 s, {self.process.wait()}"
        if status != 0:
            wrong.append(f"forebay serve: exit {status}\n{(self.home / 'server.log').read_text()[-4000:]}")
        if os.path.ismount(self.mnt):
            subprocess.run(["umount", "-l", self.mnt], check=False)
            wrong.append("the mount was still there")
        for check in ["fsck", "scrub"]:
            done = subprocess.run([self.binary, check, "--data", self.data], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                wrong.append(f"forebay {check}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return wrong


class ClientTest(unittest.TestCase):
    """One bucket per test; what a client wrote is read through the mount, and the other way round."""

    server = None

    @classmethod
    def boto(cls):
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        return boto3.client("s3", endpoint_url=cls.server.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
                            region_name="us-east-1", config=config)

    def setUp(self):
        self.s3 = self.boto()
        self.bucket = f"t-{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.mnt = self.server.mnt / self.bucket
        self.tmp = Path(tempfile.mkdtemp(dir=self.server.home))
        self.addCleanup(shutil.rmtree, self.tmp)

    def file(self, name, data=None):
        path = self.tmp / name
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def environment(self):
        return clean_environment() | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
                                      "AWS_DEFAULT_REGION": "us-east-1", "HOME": str(self.tmp)}

    def sh(self, *command, cwd=None, text=True, status=0):
        """Runs a program; its output, or a failure with what it said."""
        done = subprocess.run([str(word) for word in command], env=self.environment(), cwd=cwd or self.tmp, capture_output=True,
                              timeout=1800, check=False)
        said = (done.stderr + done.stdout).decode(errors="replace")[-3000:]
        self.assertEqual(done.returncode, status, f"{command[0]} {command[1:4]}…: {said}")
        return done.stdout.decode() if text else done.stdout

    def assert_bytes(self, got, want, what=""):
        self.assertEqual(len(got), len(want), what)
        self.assertTrue(got == want, f"{what}: contents differ")

    def assert_stored(self, key, want):
        """The object is right on both faces."""
        self.assert_bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(), want, f"S3 {key}")
        self.assert_bytes((self.mnt / key).read_bytes(), want, f"mount {key}")

    def assert_multipart(self, key):
        self.assertIn("-", self.s3.head_object(Bucket=self.bucket, Key=key)["ETag"], "it was not a multipart upload")

    def assert_gone(self, key):
        self.assertNotIn(key, self.keys())
        self.assertFalse((self.mnt / key).exists())

    def keys(self, prefix=""):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def assert_url(self, url, want):
        with urllib.request.urlopen(url) as answer:
            self.assert_bytes(answer.read(), want, url)

    def assert_same_tree(self, one, other, unlike=0):
        """Same names and bytes; same modes and, to the second, modification times of files of at least `unlike` bytes."""
        self.sh("diff", "-r", one, other)
        for path in Path(one).rglob("*"):
            if path.is_symlink() or not path.is_file() or path.stat().st_size < unlike:
                continue
            want, got = path.stat(), (Path(other) / path.relative_to(one)).stat()
            self.assertEqual((oct(want.st_mode), int(want.st_mtime)), (oct(got.st_mode), int(got.st_mtime)), path)

    def make_tree(self, count=400):
        """A tree with odd names, modes and times, and some files of more than one part."""
        made = random.Random(3)
        tree = self.tmp / "tree"
        for number in range(count):
            name = f"d{number % 7}/e{number % 3}/{made.choice(NAMES).replace('/', '_')}-{number}"
            size = 6 << 20 if number % 200 == 7 else made.choice([0, 1, 100, 4096, 70_000, made.randrange(20_000)])
            path = self.file(f"tree/{name}", made.randbytes(size))
            path.chmod(made.choice([0o644, 0o600, 0o755, 0o640]))
            moment = made.randrange(1_000_000_000, 1_700_000_000)
            os.utime(path, (moment, moment))
        return tree
