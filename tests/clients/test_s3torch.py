"""The client in s3torchconnector (Mountpoint's, on the AWS CRT), without PyTorch around it."""
import os
import unittest.mock

from harness import ACCESS_KEY, BIG, SECRET_KEY, SMALL, ClientTest
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client


class S3Torch(ClientTest):
    def setUp(self):
        super().setUp()
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_EC2_METADATA_DISABLED": "true"}
        patch = unittest.mock.patch.dict(os.environ, keys)
        patch.start()
        self.addCleanup(patch.stop)
        self.client = MountpointS3Client(region="us-east-1", user_agent_prefix="forebay-clients", endpoint=self.server.endpoint, part_size=5 << 20,
                                         force_path_style=True)

    def put(self, key, data):
        stream = self.client.put_object(self.bucket, key)
        for offset in range(0, len(data), 1 << 20):
            stream.write(data[offset:offset + (1 << 20)])
        stream.close()

    def test_put_get_list_delete(self):
        self.put("a/one", SMALL)
        self.assert_stored("a/one", SMALL)
        self.assert_bytes(b"".join(self.client.get_object(self.bucket, "a/one")), SMALL)
        self.assert_bytes(b"".join(self.client.get_object(self.bucket, "a/one", start=1000, end=2999)), SMALL[1000:2999])
        listed = [item.key for page in self.client.list_objects(self.bucket, "a/") for item in page.object_info]
        self.assertEqual(listed, ["a/one"])
        self.client.delete_object(self.bucket, "a/one")
        self.assert_gone("a/one")

    def test_multipart(self):
        self.put("big", BIG)
        self.assert_multipart("big")
        self.assert_stored("big", BIG)
        self.assert_bytes(b"".join(self.client.get_object(self.bucket, "big")), BIG)
