"""A whole tree through one client, then looked at by all the others; and into the mount by the usual tools, then out by S3.

With `run.py --tree DIR` real trees take the place of the made one. The full acceptance is 20,000 files and 1 GB or more:

  tests/clients/run.py --release --tree $(rustc --print sysroot)/share --tree $(rustc --print sysroot)/lib test_tree
"""
import os
import time
from pathlib import Path

from harness import ACCESS_KEY, SECRET_KEY, ClientTest


class Tree(ClientTest):
    def setUp(self):
        super().setUp()
        named = os.environ.get("FOREBAY_SUITE_TREES")
        self.trees = [Path(tree) for tree in named.split(os.pathsep)] if named else [self.make_tree(1500)]
        host = self.server.endpoint.split("://")[1]
        self.s3cfg = self.file("s3cfg", f"[default]\naccess_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\nhost_base = {host}\nhost_bucket = {host}\n"
                               "use_https = False\nprogress_meter = False\n".encode())
        self.rclone = self.file("rclone.conf", f"[s]\ntype = s3\nprovider = Other\naccess_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
                                f"endpoint = {self.server.endpoint}\nregion = us-east-1\nforce_path_style = true\n".encode())

    def step(self, what, *command, **options):
        started = time.monotonic()
        said = self.sh(*command, **options)
        print(f"  {what}: {time.monotonic() - started:.1f} s", flush=True)
        return said

    def test_up_by_s3cmd_then_every_client_agrees(self):
        for tree in self.trees:
            name = tree.name
            files = sum(len(names) for _, _, names in os.walk(tree))
            size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
            print(f"\n{name}: {files} files, {size / 1e6:.1f} MB", flush=True)
            url, seen = f"s3://{self.bucket}/{name}/", self.mnt / name
            s3cmd = ["s3cmd", "-c", self.s3cfg, "sync", f"{tree}/", url]
            self.step("s3cmd sync", *s3cmd)
            self.assert_same_tree(tree, seen)
            self.assertNotIn("upload:", self.step("s3cmd sync again", *s3cmd))
            aws = ["aws", "--endpoint-url", self.server.endpoint, "s3", "sync", "--dryrun", tree, url]
            self.assertEqual(self.step("aws s3 sync --dryrun", *aws), "")
            self.step("rclone check", "rclone", "--config", self.rclone, "check", tree, f"s:{self.bucket}/{name}")
            s5cmd = ["s5cmd", "--endpoint-url", self.server.endpoint, "--dry-run", "sync", f"{tree}/", url]
            self.assertEqual(self.step("s5cmd --dry-run sync", *s5cmd), "")
            # Bytes that a client reads over S3 are the mount's too.
            self.step("aws s3 sync down", "aws", "--endpoint-url", self.server.endpoint, "s3", "sync", "--quiet", url, self.tmp / "back")
            self.step("diff -r of source and download", "diff", "-r", tree, self.tmp / "back")
            self.sh("rm", "-r", self.tmp / "back")

    def assert_over_s3(self, tree, prefix):
        """The same objects by S3, byte for byte; markers of directories aside."""
        keys = {key for key in self.keys(f"{prefix}/") if not key.endswith("/")}
        files = {path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
        missing = {f"{prefix}/{path.relative_to(tree)}" for path in files} - keys
        self.assertEqual(sorted(missing)[:5], [], f"{len(missing)} keys are missing")
        self.sh("rclone", "--config", self.rclone, "check", "--download", "--one-way", "--skip-links", tree, f"s:{self.bucket}/{prefix}")

    def test_into_the_mount_by_cp_tar_and_rsync(self):
        for tree in self.trees:
            name = tree.name
            self.step("cp -a", "cp", "-a", tree, self.mnt / f"cp-{name}")
            self.assert_same_tree(tree, self.mnt / f"cp-{name}")
            self.assert_over_s3(tree, f"cp-{name}")
            archive = self.tmp / "tree.tar"
            self.sh("tar", "-C", tree.parent, "-cf", archive, name)
            (self.mnt / "tar").mkdir(exist_ok=True)
            self.step("tar x", "tar", "-C", self.mnt / "tar", "-xf", archive)
            self.assert_same_tree(tree, self.mnt / "tar" / name)
            self.assert_over_s3(tree, f"tar/{name}")
            archive.unlink()
            self.step("rsync -a", "rsync", "-a", f"{tree}/", self.mnt / f"rsync-{name}")
            self.assert_same_tree(tree, self.mnt / f"rsync-{name}")
            self.assertEqual(self.step("rsync again", "rsync", "-ai", f"{tree}/", self.mnt / f"rsync-{name}"), "")
            self.assert_over_s3(tree, f"rsync-{name}")
            self.step("rm -r", "rm", "-r", *(self.mnt / f"{how}-{name}" for how in ["cp", "rsync"]))
            self.assertEqual(self.keys(f"cp-{name}/"), [])


class Tools(ClientTest):
    """Programs that do more to a file system than write files."""

    def test_git_clone_and_commit_in_the_mount(self):
        origin = self.make_tree(200).rename(self.tmp / "origin")
        git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.net", "-c", "commit.gpgsign=false"]
        self.sh(*git, "init", "-q", origin)
        self.sh(*git, "add", "-A", cwd=origin)
        self.sh(*git, "commit", "-qm", "one", cwd=origin)
        clone = self.mnt / "clone"
        self.sh(*git, "clone", "-q", "--no-local", origin, clone)
        self.assertEqual(self.sh(*git, "status", "--porcelain", cwd=clone), "")
        self.sh("diff", "-r", "--exclude=.git", origin, clone)
        (clone / "new").write_text("text")
        self.sh(*git, "add", "new", cwd=clone)
        self.sh(*git, "commit", "-qm", "two", cwd=clone)
        self.sh(*git, "gc", "-q", cwd=clone)
        self.sh(*git, "fsck", "--strict", cwd=clone)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="clone/new")["Body"].read(), b"text")

    def test_cargo_builds_a_crate_in_the_mount(self):
        crate = self.mnt / "hello"
        self.sh("cargo", "init", "--quiet", "--vcs", "none", "--name", "hello", crate)
        (crate / "src/main.rs").write_text('fn main() { println!("built in the mount"); }\n')
        self.sh("cargo", "build", "--quiet", "--offline", cwd=crate)
        self.assertEqual(self.sh(crate / "target/debug/hello"), "built in the mount\n")
        self.assertIn("hello/target/debug/hello", self.keys("hello/target/debug/"))

    def environment(self):
        given = super().environment()
        given.pop("CARGO_TARGET_DIR", None)
        # cargo and rustup keep what they need below the real home.
        return given | {"HOME": os.environ["HOME"]}
