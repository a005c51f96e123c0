"""rclone."""
import os

from harness import ACCESS_KEY, BIG, SECRET_KEY, SMALL, ClientTest


class Rclone(ClientTest):
    def setUp(self):
        super().setUp()
        self.settings = self.file("rclone.conf", f"[s]\ntype = s3\nprovider = Other\naccess_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
                                  f"endpoint = {self.server.endpoint}\nregion = us-east-1\nforce_path_style = true\nchunk_size = 5Mi\n"
                                  "upload_cutoff = 5Mi\n".encode())

    def rclone(self, *args, **options):
        return self.sh("rclone", "--config", self.settings, "--retries", "1", *args, **options)

    def remote(self, key=""):
        return f"s:{self.bucket}/{key}"

    def test_copyto_cat_lsf_moveto_delete(self):
        self.rclone("copyto", self.file("up", SMALL), self.remote("a/one"))
        self.assert_stored("a/one", SMALL)
        self.assert_bytes(self.rclone("cat", "--offset", "1000", "--count", "1999", self.remote("a/one"), text=False), SMALL[1000:2999])
        self.rclone("moveto", self.remote("a/one"), self.remote("b/two"))
        self.assert_gone("a/one")
        self.assertEqual(self.rclone("lsf", "-R", "--files-only", self.remote()).split(), ["b/two"])
        self.assert_url(self.rclone("link", "--expire", "10m", self.remote("b/two")).strip(), SMALL)
        self.rclone("deletefile", self.remote("b/two"))
        self.assert_gone("b/two")

    def test_multipart(self):
        self.rclone("copyto", self.file("up", BIG), self.remote("big"))
        self.assert_multipart("big")
        self.assert_stored("big", BIG)

    def test_sync_twice_check_and_back(self):
        tree = self.make_tree()
        self.rclone("sync", tree, self.remote("t"))
        self.sh("diff", "-r", tree, self.mnt / "t")
        for path in tree.rglob("*"):
            if path.is_file():
                seen = self.mnt / "t" / path.relative_to(tree)
                self.assertEqual(int(path.stat().st_mtime), int(seen.stat().st_mtime), seen)
        # --dry-run says at the level of NOTICE what it would do.
        self.assertEqual(self.rclone("sync", "--dry-run", "--log-level", "ERROR", "--combined", "-", tree, self.remote("t")).count("\n* "), 0)
        self.rclone("check", tree, self.remote("t"))
        self.rclone("check", "--download", tree, self.remote("t"))
        self.rclone("sync", self.remote("t"), self.tmp / "back")
        self.sh("diff", "-r", tree, self.tmp / "back")

    def test_what_the_mount_wrote_comes_down_with_its_time(self):
        path = self.mnt / "d/f"
        path.parent.mkdir()
        path.write_bytes(SMALL)
        os.utime(path, (1_234_567_890, 1_234_567_890))
        self.rclone("copy", self.remote("d"), self.tmp / "back")
        self.assert_bytes((self.tmp / "back/f").read_bytes(), SMALL)
        self.assertEqual(int((self.tmp / "back/f").stat().st_mtime), 1_234_567_890)
