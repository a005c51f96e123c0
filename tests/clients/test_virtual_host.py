"""Buckets in the host's name (virtual-host style), with and without dots, presigned too."""
import http.client
import io
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from harness import ACCESS_KEY, BIG, DOMAIN, NAMES, SECRET_KEY, SMALL, ClientTest
from minio import Minio

PART = 5 << 20


class VirtualHost(ClientTest):
    def setUp(self):
        super().setUp()
        self.address = self.server.endpoint.split("://")[1]
        self.host = f"{DOMAIN}:{self.address.split(':')[1]}"
        self.virtual = self.virtual_boto(self.host)

    def virtual_boto(self, host):
        config = Config(signature_version="s3v4", s3={"addressing_style": "virtual"}, retries={"max_attempts": 1})
        return boto3.client("s3", endpoint_url=f"http://{host}", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
                            region_name="us-east-1", config=config)

    def use_bucket_with_dots(self):
        self.bucket = f"dots.{self.bucket}.x"
        self.mnt = self.server.mnt / self.bucket
        self.virtual.create_bucket(Bucket=self.bucket)

    def presigned(self, call, key, client=None):
        return (client or self.virtual).generate_presigned_url(call, Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=60)

    def test_boto3(self):
        for dots in [False, True]:
            if dots:
                self.use_bucket_with_dots()
            for name in NAMES:
                self.virtual.put_object(Bucket=self.bucket, Key=name, Body=name.encode())
                self.assert_stored(name, name.encode())
                self.assert_bytes(self.virtual.get_object(Bucket=self.bucket, Key=name)["Body"].read(), name.encode())
            pages = self.virtual.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, PaginationConfig={"PageSize": 4})
            self.assertEqual(sorted(item["Key"] for page in pages for item in page["Contents"]), sorted(NAMES))
            self.virtual.upload_fileobj(io.BytesIO(BIG), self.bucket, "big", Config=TransferConfig(multipart_threshold=PART, multipart_chunksize=PART))
            self.assert_multipart("big")
            self.virtual.copy_object(Bucket=self.bucket, Key="copy", CopySource={"Bucket": self.bucket, "Key": "big"})
            self.assert_stored("copy", BIG)
            self.virtual.head_bucket(Bucket=self.bucket)
            self.virtual.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in self.keys()]})
            self.assertEqual(self.keys(), [])
            self.virtual.delete_bucket(Bucket=self.bucket)
            self.assertFalse(self.mnt.exists())

    def test_presigned(self):
        for dots in [False, True]:
            if dots:
                self.use_bucket_with_dots()
            url = self.presigned("put_object", "a b/ü")
            self.assertEqual(urlsplit(url).netloc, f"{self.bucket}.{self.host}")
            urllib.request.urlopen(urllib.request.Request(url, data=SMALL, method="PUT", headers={"Content-Type": ""})).close()
            self.assert_stored("a b/ü", SMALL)
            self.assert_url(self.presigned("get_object", "a b/ü"), SMALL)

    def test_presigned_for_one_bucket_is_for_no_other(self):
        self.virtual.put_object(Bucket=self.bucket, Key="k", Body=SMALL)
        other = f"{self.bucket}-2"
        self.virtual.create_bucket(Bucket=other)
        self.virtual.put_object(Bucket=other, Key="k", Body=SMALL)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(self.presigned("get_object", "k").replace(self.bucket, other, 1))
        self.assertEqual(caught.exception.code, 403)
        caught.exception.close()

    def test_a_host_without_a_port(self):
        """As it arrives behind a proxy on port 80."""
        self.virtual.put_object(Bucket=self.bucket, Key="k", Body=SMALL)
        url = urlsplit(self.presigned("get_object", "k", self.virtual_boto(DOMAIN)))
        self.assertEqual(url.netloc, f"{self.bucket}.{DOMAIN}")
        connection = http.client.HTTPConnection(self.address)
        self.addCleanup(connection.close)
        connection.request("GET", f"{url.path}?{url.query}", headers={"Host": url.netloc})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.assert_bytes(answer.read(), SMALL)

    def test_s3cmd(self):
        settings = self.file("s3cfg", f"[default]\naccess_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\nhost_base = {self.host}\n"
                             f"host_bucket = %(bucket)s.{self.host}\nuse_https = False\nmultipart_chunk_size_mb = 5\nprogress_meter = False\n".encode())
        for dots in [False, True]:
            if dots:
                self.use_bucket_with_dots()
            url = f"s3://{self.bucket}/"
            for name in NAMES:
                self.sh("s3cmd", "-c", settings, "put", self.file("up", name.encode()), url + name)
                self.assert_stored(name, name.encode())
            self.sh("s3cmd", "-c", settings, "put", self.file("up", BIG), url + "big")
            self.sh("s3cmd", "-c", settings, "get", url + "big", self.file(f"down-{dots}"))
            self.assert_bytes(self.file(f"down-{dots}").read_bytes(), BIG)
            self.assertIn(url + "big", self.sh("s3cmd", "-c", settings, "ls", "-r", url))
            self.sh("s3cmd", "-c", settings, "del", "-r", "--force", url)
            self.sh("s3cmd", "-c", settings, "rb", url)
            self.sh("s3cmd", "-c", settings, "mb", url)
            self.assertTrue(self.mnt.is_dir())

    def test_aws_cli(self):
        self.settings = self.file("aws", b"[default]\ns3 =\n  addressing_style = virtual\n  signature_version = s3v4\n")
        aws = ["aws", "--endpoint-url", f"http://{self.host}"]
        for dots in [False, True]:
            if dots:
                self.use_bucket_with_dots()
            url = f"s3://{self.bucket}"
            self.sh(*aws, "s3", "cp", self.file("up", BIG), f"{url}/a/big")
            self.assert_stored("a/big", BIG)
            self.sh(*aws, "s3", "cp", f"{url}/a/big", f"{url}/b")
            self.assertIn("PRE a/", self.sh(*aws, "s3", "ls", url))
            self.assert_url(self.sh(*aws, "s3", "presign", f"{url}/b").strip(), BIG)

    def test_minio(self):
        minio = Minio(endpoint=self.host, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region="us-east-1")
        minio.enable_virtual_style_endpoint()
        for name in NAMES:
            minio.put_object(bucket_name=self.bucket, object_name=name, data=io.BytesIO(SMALL), length=len(SMALL))
            self.assert_stored(name, SMALL)
        self.assertEqual(sorted(item.object_name for item in minio.list_objects(bucket_name=self.bucket, recursive=True)), sorted(NAMES))

    def test_rclone_by_a_proxy(self):
        """rclone asks the system for names, so it gets forebay as its proxy: a proxy's requests name the host twice."""
        settings = self.file("rclone.conf", f"[s]\ntype = s3\nprovider = Other\naccess_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
                             f"endpoint = http://{self.host}\nregion = us-east-1\nforce_path_style = false\nchunk_size = 5Mi\n"
                             "upload_cutoff = 5Mi\n".encode())
        self.proxy = self.server.endpoint
        log = self.file("rclone.log")
        rclone = ["rclone", "--config", settings, "--retries", "1", "--dump", "headers", "--log-file", log, "-vv"]
        self.sh(*rclone, "copyto", self.file("up", BIG), f"s:{self.bucket}/a/big")
        self.assert_stored("a/big", BIG)
        self.assertEqual(self.sh(*rclone, "lsf", "-R", "--files-only", f"s:{self.bucket}").split(), ["a/big"])
        self.assertIn(f"Host: {self.bucket}.{self.host}", log.read_text())
        self.assertNotIn(f"Host: {self.host}", log.read_text())

    def environment(self):
        more = {"AWS_CONFIG_FILE": str(self.settings)} if hasattr(self, "settings") else {}
        more |= {"http_proxy": self.proxy} if hasattr(self, "proxy") else {}
        return super().environment() | more
