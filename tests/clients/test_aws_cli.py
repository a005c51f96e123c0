"""The AWS command line."""
import json

from harness import BIG, NAMES, SMALL, ClientTest


class AwsCli(ClientTest):
    def aws(self, *args, **options):
        return self.sh("aws", "--endpoint-url", self.server.endpoint, *args, **options)

    def url(self, key=""):
        return f"s3://{self.bucket}/{key}"

    def test_cp_ls_mv_rm(self):
        self.aws("s3", "cp", self.file("up", SMALL), self.url("a/one"))
        self.assert_stored("a/one", SMALL)
        self.aws("s3", "cp", self.url("a/one"), self.file("down"))
        self.assert_bytes(self.file("down").read_bytes(), SMALL)
        self.aws("s3", "mv", self.url("a/one"), self.url("b/two"))
        self.assert_gone("a/one")
        self.assertIn("b/two", self.aws("s3", "ls", "--recursive", self.url()))
        self.assertIn("PRE b/", self.aws("s3", "ls", self.url()))
        self.aws("s3", "rm", self.url("b/two"))
        self.assert_gone("b/two")

    def test_names(self):
        for name in NAMES:
            self.aws("s3", "cp", self.file("up", name.encode()), self.url(name))
            self.assert_stored(name, name.encode())

    def test_multipart(self):
        self.aws("s3", "cp", self.file("up", BIG), self.url("big"))
        self.assert_multipart("big")
        self.assert_stored("big", BIG)
        self.aws("s3", "cp", self.url("big"), self.url("copy"))
        self.assert_stored("copy", BIG)
        self.aws("s3", "cp", self.url("copy"), self.file("down"))
        self.assert_bytes(self.file("down").read_bytes(), BIG)

    def test_sync_twice_and_back(self):
        tree = self.make_tree(120)
        self.aws("s3", "sync", tree, self.url("t"))
        self.sh("diff", "-r", tree, self.mnt / "t")
        self.assertEqual(self.aws("s3", "sync", tree, self.url("t")), "")
        self.aws("s3", "sync", self.url("t"), self.tmp / "back")
        self.sh("diff", "-r", tree, self.tmp / "back")
        (self.mnt / "t/d0/new").write_bytes(SMALL)
        self.aws("s3", "sync", "--delete", tree, self.url("t"))
        self.assert_gone("t/d0/new")

    def test_range_presign_and_delete_objects(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=SMALL)
        self.aws("s3api", "get-object", "--bucket", self.bucket, "--key", "k", "--range", "bytes=1000-2998", self.file("part"))
        self.assert_bytes(self.file("part").read_bytes(), SMALL[1000:2999])
        self.assert_url(self.aws("s3", "presign", self.url("k")).strip(), SMALL)
        objects = json.dumps({"Objects": [{"Key": "k"}, {"Key": "never-was"}]})
        self.aws("s3api", "delete-objects", "--bucket", self.bucket, "--delete", objects)
        self.assert_gone("k")

    def test_mb_and_rb(self):
        self.aws("s3", "mb", f"s3://{self.bucket}-2")
        self.assertIn(f"{self.bucket}-2", self.aws("s3", "ls"))
        self.assertTrue((self.server.mnt / f"{self.bucket}-2").is_dir())
        self.aws("s3", "rb", f"s3://{self.bucket}-2")
        self.assertFalse((self.server.mnt / f"{self.bucket}-2").exists())

    def setUp(self):
        super().setUp()
        # This version presigns with Signature Version 2 unless it is told otherwise.
        self.settings = self.file("aws-config", b"[default]\ns3 =\n  signature_version = s3v4\n  addressing_style = path\n"
                                  b"  multipart_threshold = 5MB\n  multipart_chunksize = 5MB\n")

    def environment(self):
        return super().environment() | {"AWS_CONFIG_FILE": str(self.settings)}
