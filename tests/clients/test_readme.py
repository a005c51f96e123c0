"""The README's commands that need clients, pasted into one shell, in order."""
import re
import subprocess
import tempfile
from pathlib import Path

from harness import ROOT, ClientTest, clean_environment


class Readme(ClientTest):
    def test_five_minutes(self):
        text = (ROOT / "README.md").read_text()
        section = re.search(r"^## Five minutes$(.*?)^## ", text, re.M | re.S)[1]
        blocks = re.findall(r"^```(sh|python)\n(.*?)^```", section, re.M | re.S)
        self.assertGreaterEqual(len(blocks), 4)
        with tempfile.TemporaryDirectory(dir=self.server.home) as place:
            script = ["set -euo pipefail"]
            for language, block in blocks:
                # The README's server has the default address, data directory and mount.
                block = block.replace("http://127.0.0.1:9000", self.server.endpoint)
                block = block.replace("127.0.0.1:9000", self.server.endpoint.split("://")[1])
                script.append(f"python3 - <<'END'\n{block}END" if language == "python" else block)
            # What the README's first command has made, and what lies in a checkout.
            key = "AWS_ACCESS_KEY_ID=FBCLIENTSUITE\nAWS_SECRET_ACCESS_KEY=client-suite-secret\n"
            (self.server.data / "root-key").write_text(key)
            (Path(place) / "target/release").mkdir(parents=True)
            for name, there in [("forebay-data", self.server.data), ("mnt", self.server.mnt), ("store", ROOT / "store"),
                                ("target/release/forebay", self.server.binary)]:
                (Path(place) / name).symlink_to(there)
            environment = clean_environment() | {"HOME": place}
            done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=place, env=environment, capture_output=True, text=True, timeout=300,
                                  check=False)
            self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
