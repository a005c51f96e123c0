"""minio-py."""
import io

from harness import ACCESS_KEY, BIG, NAMES, SECRET_KEY, SMALL, ClientTest
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject

PART = 5 << 20


class MinioPy(ClientTest):
    def setUp(self):
        super().setUp()
        host = self.server.endpoint.split("://")[1]
        self.minio = Minio(endpoint=host, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region="us-east-1")

    def put(self, key, data):
        self.minio.put_object(bucket_name=self.bucket, object_name=key, data=io.BytesIO(data), length=len(data), part_size=PART)

    def get(self, key, **options):
        answer = self.minio.get_object(bucket_name=self.bucket, object_name=key, **options)
        try:
            return answer.read()
        finally:
            answer.close()

    def test_put_get_stat_remove(self):
        for name in NAMES:
            self.put(name, SMALL)
            self.assert_stored(name, SMALL)
        self.assert_bytes(self.get("plain", offset=1000, length=1999), SMALL[1000:2999])
        self.assertEqual(self.minio.stat_object(bucket_name=self.bucket, object_name="plain").size, len(SMALL))
        listed = [item.object_name for item in self.minio.list_objects(bucket_name=self.bucket, recursive=True)]
        self.assertEqual(sorted(listed), sorted(NAMES))
        self.minio.remove_object(bucket_name=self.bucket, object_name="plain")
        self.assert_gone("plain")

    def test_multipart(self):
        self.put("big", BIG)
        self.assert_multipart("big")
        self.assert_stored("big", BIG)

    def test_copy_and_remove_many(self):
        self.put("a", SMALL)
        self.minio.copy_object(bucket_name=self.bucket, object_name="b", source=CopySource(bucket_name=self.bucket, object_name="a"))
        self.assert_stored("b", SMALL)
        errors = self.minio.remove_objects(bucket_name=self.bucket, delete_object_list=[DeleteObject("a"), DeleteObject("b")])
        self.assertEqual(list(errors), [])
        self.assertEqual(self.keys(), [])

    def test_presign(self):
        self.put("k", SMALL)
        self.assert_url(self.minio.presigned_get_object(bucket_name=self.bucket, object_name="k"), SMALL)
