"""An S3 server for tests: moto's, in a process of its own, which speaks the protocol and keeps objects in memory.

Signatures and permissions are checked: https://docs.getmoto.org/en/latest/docs/iam.html
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import httpx
import obstore
from obstore.store import S3Store

from foramen.supervisor.ports import free_port
from tests.builders.system import wait_for

BUCKET = "images-synthetic"
ALLOWED = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
_ANYBODY = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}


class S3Server:
    """A server on a free port, with one bucket; what it holds ends with it."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self._access, self._secret = folder / "access-key", folder / "secret-key"
        self._own: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of an installation that uses it."""
        return {
            **{"nearline_s3_bucket": BUCKET, "nearline_s3_endpoint": self.endpoint, "nearline_s3_prefix": "foramen/"},
            **{"nearline_s3_key_id_file": self._access, "nearline_s3_key_file": self._secret},
        }

    def start(self) -> None:
        """Start and wait until it answers, with an empty bucket and a key that is good for what the how-to names."""
        port = self.endpoint.rpartition(":")[2]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers)
        httpx.put(f"{self.endpoint}/{BUCKET}").raise_for_status()
        key = self._key("service", ALLOWED, f"{BUCKET}/foramen/*")
        self._access.write_text(f"{key['AccessKeyId']}\n", encoding="utf-8")
        self._secret.write_text(f"{key['SecretAccessKey']}\n", encoding="utf-8")
        self._own = self._key("test", ["s3:*"], "*")
        httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()  # Checked from now on.

    def _key(self, user: str, actions: list[str], where: str) -> dict[str, str]:
        iam = boto3.client("iam", endpoint_url=self.endpoint, region_name="us-east-1", **_ANYBODY)
        iam.create_user(UserName=user)
        statement = {"Effect": "Allow", "Action": actions, "Resource": f"arn:aws:s3:::{where}"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=user, PolicyName="images", PolicyDocument=policy)
        return dict(iam.create_access_key(UserName=user)["AccessKey"])

    def _answers(self) -> bool:
        try:
            return httpx.get(self.endpoint).status_code < 500
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def store(self) -> S3Store:
        """The bucket, for a test to look into."""
        return S3Store(
            BUCKET,
            **{"endpoint": self.endpoint, "region": "us-east-1", "virtual_hosted_style_request": False},
            **{"access_key_id": self._own["AccessKeyId"], "secret_access_key": self._own["SecretAccessKey"]},
            **{"client_options": {"allow_http": True}},
        )

    def keys(self) -> list[str]:
        """Names of all objects."""
        return sorted(item["path"] for page in obstore.list(self.store) for item in page)
