"""s5cmd."""
from harness import BIG, SMALL, ClientTest


class S5cmd(ClientTest):
    def s5cmd(self, *args, **options):
        return self.sh("s5cmd", "--endpoint-url", self.server.endpoint, *args, **options)

    def url(self, key=""):
        return f"s3://{self.bucket}/{key}"

    def test_cp_cat_ls_mv_rm(self):
        self.s5cmd("cp", self.file("up", SMALL), self.url("a/one"))
        self.assert_stored("a/one", SMALL)
        self.assert_bytes(self.s5cmd("cat", self.url("a/one"), text=False), SMALL)
        self.s5cmd("cp", self.url("a/one"), self.url("a/two"))
        self.s5cmd("mv", self.url("a/two"), self.url("b/three"))
        self.assert_stored("b/three", SMALL)
        self.assertIn("one", self.s5cmd("ls", self.url("a/*")))
        self.s5cmd("rm", self.url("*"))
        self.assertEqual(self.keys(), [])

    def test_multipart(self):
        self.s5cmd("cp", "--part-size", "5", self.file("up", BIG), self.url("big"))
        self.assert_multipart("big")
        self.assert_stored("big", BIG)
        self.s5cmd("cp", "--part-size", "5", self.url("big"), self.file("down"))
        self.assert_bytes(self.file("down").read_bytes(), BIG)

    def test_sync_twice_and_back(self):
        tree = self.make_tree(120)
        self.s5cmd("sync", f"{tree}/", self.url("t/"))
        self.sh("diff", "-r", tree, self.mnt / "t")
        self.assertEqual(self.s5cmd("sync", f"{tree}/", self.url("t/")), "")
        self.s5cmd("sync", self.url("t/*"), f"{self.tmp}/back/")
        self.sh("diff", "-r", tree, self.tmp / "back")

    def test_presign(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=SMALL)
        self.assert_url(self.s5cmd("presign", "--expire", "10m", self.url("k")).strip(), SMALL)
