"""s3cmd. It presigns with Signature Version 2 only, which is refused, so that is not here."""
import os

from harness import ACCESS_KEY, BIG, NAMES, SECRET_KEY, SMALL, ClientTest


class S3cmd(ClientTest):
    def setUp(self):
        super().setUp()
        host = self.server.endpoint.split("://")[1]
        self.settings = self.file("s3cfg", f"[default]\naccess_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\nhost_base = {host}\nhost_bucket = {host}\n"
                                  "use_https = False\nmultipart_chunk_size_mb = 5\nprogress_meter = False\n".encode())

    def s3cmd(self, *args, **options):
        return self.sh("s3cmd", "-c", self.settings, *args, **options)

    def url(self, key=""):
        return f"s3://{self.bucket}/{key}"

    def test_put_get_ls_info_del(self):
        self.s3cmd("put", self.file("up", SMALL), self.url("a/one"))
        self.assert_stored("a/one", SMALL)
        self.s3cmd("get", self.url("a/one"), self.file("down"))
        self.assert_bytes(self.file("down").read_bytes(), SMALL)
        self.assertIn(self.url("a/one"), self.s3cmd("ls", "-r", self.url()))
        self.assertIn("4097", self.s3cmd("info", self.url("a/one")))
        self.s3cmd("del", self.url("a/one"))
        self.assert_gone("a/one")

    def test_names(self):
        for name in NAMES:
            self.s3cmd("put", self.file("up", name.encode()), self.url(name))
            self.assert_stored(name, name.encode())

    def test_multipart(self):
        self.s3cmd("put", self.file("up", BIG), self.url("big"))
        self.assert_multipart("big")
        self.assert_stored("big", BIG)

    def test_cp_mv(self):
        self.s3cmd("put", self.file("up", SMALL), self.url("a"))
        self.s3cmd("cp", self.url("a"), self.url("b"))
        self.s3cmd("mv", self.url("a"), self.url("c"))
        self.assert_gone("a")
        self.assert_stored("b", SMALL)
        self.assert_stored("c", SMALL)

    def test_mb_and_rb(self):
        self.s3cmd("mb", f"s3://{self.bucket}-2")
        self.assertTrue((self.server.mnt / f"{self.bucket}-2").is_dir())
        self.s3cmd("rb", f"s3://{self.bucket}-2")
        self.assertFalse((self.server.mnt / f"{self.bucket}-2").exists())

    def test_sync_twice_with_times_and_modes_and_back(self):
        tree = self.make_tree()
        self.s3cmd("sync", f"{tree}/", self.url("t/"))
        self.assert_same_tree(tree, self.mnt / "t")
        self.assertNotIn("upload:", self.s3cmd("sync", f"{tree}/", self.url("t/")))
        self.s3cmd("sync", self.url("t/"), f"{self.tmp}/back/")
        # Of files with the same bytes it fetches one and copies it, so the others get that one's time.
        self.assert_same_tree(tree, self.tmp / "back", unlike=2)

    def test_what_the_mount_wrote_comes_down_with_its_time_and_mode(self):
        tree = self.make_tree()
        self.sh("cp", "-a", tree, self.mnt / "t")
        self.s3cmd("sync", self.url("t/"), f"{self.tmp}/back/")
        self.assert_same_tree(tree, self.tmp / "back", unlike=2)
        self.assertNotIn("download:", self.s3cmd("sync", self.url("t/"), f"{self.tmp}/back/"))
        self.assertNotIn("upload:", self.s3cmd("sync", f"{tree}/", self.url("t/")))
        one = self.mnt / "t/one"
        one.write_bytes(SMALL)
        one.chmod(0o751)
        os.utime(one, (1_234_567_890, 1_234_567_890))
        self.s3cmd("sync", self.url("t/"), f"{self.tmp}/back/")
        self.assert_same_file(one, self.tmp / "back/one")

    def test_a_rewrite_in_the_mount_leaves_no_digest_of_the_old_bytes(self):
        for name, data in {"small": SMALL, "big": BIG}.items():
            up = self.file("up", data)
            up.chmod(0o604)
            self.s3cmd("put", up, self.url(name))
            seen = self.mnt / name
            # Changing attributes is no rewrite.
            seen.chmod(0o640)
            os.utime(seen, (1_300_000_000, 1_300_000_000))
            self.assertIn("md5:", self.attrs(name))
            # Of s3cmd's commands only sync restores attributes.
            self.s3cmd("sync", self.url(), f"{self.tmp}/one/")
            self.assert_same_file(seen, self.tmp / "one" / name)
            with seen.open("r+b") as file:
                file.write(b"!")
            self.assertNotIn("md5:", self.attrs(name))
            # It would warn of a sum that does not match, on standard error.
            said = self.sh("sh", "-c", f"s3cmd -c {self.settings} sync {self.url()} {self.tmp}/two/ 2>&1")
            self.assertNotIn("MD5", said)
            self.assert_same_file(seen, self.tmp / "two" / name)
            up.write_bytes(data + b"more")
            self.assertIn("upload:", self.s3cmd("sync", up, self.url(name)))
            self.assert_stored(name, data + b"more")

    def attrs(self, key):
        return self.s3.head_object(Bucket=self.bucket, Key=key)["Metadata"]["s3cmd-attrs"]

    def assert_same_file(self, one, other):
        """The same bytes, mode and, to the second, time."""
        self.assert_bytes(other.read_bytes(), one.read_bytes(), other)
        want, got = one.stat(), other.stat()
        self.assertEqual((oct(want.st_mode), int(want.st_mtime)), (oct(got.st_mode), int(got.st_mtime)), other)
