"""boto3, call by call."""
import base64
import hashlib
import random
import urllib.request
import zlib

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from harness import BIG, NAMES, SMALL, ClientTest

PART = 5 << 20


class Boto3(ClientTest):
    def code_of(self, call, **args):
        with self.assertRaises(ClientError) as caught:
            call(Bucket=self.bucket, **args)
        return caught.exception.response["Error"]["Code"]

    def test_put_get_head(self):
        put = self.s3.put_object(Bucket=self.bucket, Key="k", Body=SMALL, ContentType="text/x", Metadata={"who": "me"})
        self.assertEqual(put["ETag"], f'"{hashlib.md5(SMALL).hexdigest()}"')
        self.assert_stored("k", SMALL)
        head = self.s3.head_object(Bucket=self.bucket, Key="k")
        self.assertEqual((head["ContentLength"], head["ContentType"], head["Metadata"]), (len(SMALL), "text/x", {"who": "me"}))
        self.assertEqual(self.code_of(self.s3.get_object, Key="never-was"), "NoSuchKey")

    def test_range(self):
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=SMALL)
        for text, want in [("0-0", SMALL[:1]), ("1000-2998", SMALL[1000:2999]), ("-5", SMALL[-5:]), ("4000-", SMALL[4000:])]:
            got = self.s3.get_object(Bucket=self.bucket, Key="k", Range=f"bytes={text}")
            self.assert_bytes(got["Body"].read(), want, text)
        self.assertEqual(self.code_of(self.s3.get_object, Key="k", Range="bytes=4097-"), "InvalidRange")

    def test_names_and_pages(self):
        for name in NAMES:
            self.s3.put_object(Bucket=self.bucket, Key=name, Body=name.encode())
            self.assert_stored(name, name.encode())
        for version in ["list_objects", "list_objects_v2"]:
            pages = self.s3.get_paginator(version).paginate(Bucket=self.bucket, PaginationConfig={"PageSize": 4})
            listed = [item["Key"] for page in pages for item in page["Contents"]]
            self.assertEqual(listed, sorted(NAMES, key=lambda name: name.encode()), version)
        page = self.s3.list_objects_v2(Bucket=self.bucket, Delimiter="/")
        self.assertEqual([item["Prefix"] for item in page["CommonPrefixes"]], ["dir/"])

    def test_upload_and_download_file(self):
        config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
        self.s3.upload_file(self.file("up", BIG), self.bucket, "big", Config=config)
        self.assert_multipart("big")
        self.assert_stored("big", BIG)
        self.s3.download_file(self.bucket, "big", self.file("down"), Config=config)
        self.assert_bytes(self.file("down").read_bytes(), BIG)

    def test_multipart_with_a_copied_part(self):
        self.s3.put_object(Bucket=self.bucket, Key="source", Body=BIG)
        upload = {"Bucket": self.bucket, "Key": "joined", "UploadId": self.s3.create_multipart_upload(Bucket=self.bucket, Key="joined")["UploadId"]}
        copied = self.s3.upload_part_copy(**upload, PartNumber=1, CopySource={"Bucket": self.bucket, "Key": "source"},
                                          CopySourceRange=f"bytes=0-{PART - 1}")["CopyPartResult"]["ETag"]
        sent = self.s3.upload_part(**upload, PartNumber=2, Body=SMALL)["ETag"]
        self.assertEqual([part["PartNumber"] for part in self.s3.list_parts(**upload)["Parts"]], [1, 2])
        parts = [{"PartNumber": 1, "ETag": copied}, {"PartNumber": 2, "ETag": sent}]
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        self.assert_stored("joined", BIG[:PART] + SMALL)
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="dropped")["UploadId"]
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key="dropped", UploadId=upload)
        self.assertNotIn("Uploads", self.s3.list_multipart_uploads(Bucket=self.bucket))

    def test_copied_parts_share_the_bytes(self):
        bytes_ = random.Random(3).randbytes(64 << 20)
        self.s3.put_object(Bucket=self.bucket, Key="source", Body=bytes_)
        disk_bytes = lambda: sum(path.stat().st_blocks * 512 for path in (self.server.data / "files").glob("*/*"))
        before = disk_bytes()
        upload = {"Bucket": self.bucket, "Key": "copy", "UploadId": self.s3.create_multipart_upload(Bucket=self.bucket, Key="copy")["UploadId"]}
        ranges, parts = [(5, 20 << 20), (20 << 20, 64 << 20), (1, 7 << 20)], []
        for number, (start, end) in enumerate(ranges, 1):
            copied = self.s3.upload_part_copy(**upload, PartNumber=number, CopySource={"Bucket": self.bucket, "Key": "source"},
                                              CopySourceRange=f"bytes={start}-{end - 1}")["CopyPartResult"]["ETag"]
            self.assertEqual(copied, f'"{hashlib.md5(bytes_[start:end]).hexdigest()}"')
            parts.append({"PartNumber": number, "ETag": copied})
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        self.assertLess(disk_bytes() - before, 1 << 20)
        self.s3.delete_object(Bucket=self.bucket, Key="source")
        self.assert_stored("copy", b"".join(bytes_[start:end] for start, end in ranges))

    def test_copy(self):
        self.s3.put_object(Bucket=self.bucket, Key="a", Body=SMALL, Metadata={"who": "me"})
        self.s3.copy_object(Bucket=self.bucket, Key="b", CopySource={"Bucket": self.bucket, "Key": "a"})
        self.assert_stored("b", SMALL)
        self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key="b")["Metadata"], {"who": "me"})
        self.s3.copy_object(Bucket=self.bucket, Key="b", CopySource={"Bucket": self.bucket, "Key": "a"}, MetadataDirective="REPLACE", Metadata={})
        self.assertEqual(self.s3.head_object(Bucket=self.bucket, Key="b")["Metadata"], {})

    def test_delete(self):
        for key in ["a", "b", "c"]:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")
        self.s3.delete_object(Bucket=self.bucket, Key="a")
        self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
        self.assertEqual(self.keys(), [])
        self.assertEqual(list(self.mnt.iterdir()), [])

    def test_presigned_get_and_put(self):
        target = {"Bucket": self.bucket, "Key": "k y"}
        put = urllib.request.Request(self.s3.generate_presigned_url("put_object", Params=target), data=SMALL, method="PUT")
        with urllib.request.urlopen(put) as answer:
            self.assertEqual(answer.status, 200)
        self.assert_stored("k y", SMALL)
        self.assert_url(self.s3.generate_presigned_url("get_object", Params=target), SMALL)

    def test_conditions(self):
        etag = self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"1")["ETag"]
        self.assertEqual(self.code_of(self.s3.put_object, Key="k", Body=b"2", IfNoneMatch="*"), "PreconditionFailed")
        self.s3.put_object(Bucket=self.bucket, Key="k", Body=b"2", IfMatch=etag)
        self.assertEqual(self.code_of(self.s3.put_object, Key="k", Body=b"3", IfMatch=etag), "PreconditionFailed")
        self.assertEqual(self.code_of(self.s3.get_object, Key="k", IfMatch=etag), "PreconditionFailed")
        self.assert_stored("k", b"2")

    def test_checksums(self):
        digests = {"SHA256": hashlib.sha256(SMALL).digest(), "SHA1": hashlib.sha1(SMALL).digest(), "CRC32": zlib.crc32(SMALL).to_bytes(4, "big")}
        for algorithm, digest in digests.items():
            field = f"Checksum{algorithm}"
            put = self.s3.put_object(Bucket=self.bucket, Key="k", Body=SMALL, ChecksumAlgorithm=algorithm)
            self.assertEqual(base64.b64decode(put[field]), digest)
            head = self.s3.head_object(Bucket=self.bucket, Key="k", ChecksumMode="ENABLED")
            self.assertEqual(base64.b64decode(head[field]), digest)
            wrong = base64.b64encode(bytes(len(digest))).decode()
            self.assertEqual(self.code_of(self.s3.put_object, Key="w", Body=SMALL, **{field: wrong}), "BadDigest")
        self.assert_gone("w")
