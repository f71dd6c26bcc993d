"""Two S3 servers on loopback: moto inside this process, SeaweedFS from its wheel as processes of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WEED = Path(sys.executable).parent / "weed"
KEY, SECRET = "writer", "writer-secret"
READY_S = 60.0


@dataclass(frozen=True)
class Server:
    """Where a server listens; `bucket` exists.

    Args:
        name: of the software.
        endpoint: its address.
        bucket: one that is empty.
    """

    name: str
    endpoint: str
    bucket: str = "lakes"

    def environment(self, cache: Path) -> dict[str, str]:
        """The variables under which a process uses it, with a cache of its own; everything else goes nowhere."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "NEUROFMX_CACHE": str(cache),
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }


@contextlib.contextmanager
def moto() -> Iterator[Server]:
    """moto's server: asks for a signature, accepts any."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield _with_bucket(Server("moto", f"http://{host}:{port}"))
    finally:
        server.stop()


@contextlib.contextmanager
def weed(folder: Path | None = None) -> Iterator[Server]:
    """SeaweedFS: knows one writer, `KEY`, and refuses everybody else."""
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weed-")))
        writer = {"name": "writer", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                  "actions": ["Admin", "Read", "Write", "List"]}  # fmt: skip
        (home / "s3.json").write_text(json.dumps({"identities": [writer]}))
        names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
                 "filer.port", "filer.port.grpc")  # fmt: skip
        ports = dict(zip(names, _free(len(names)), strict=True))
        command = [str(WEED), "server", f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
                   f"-s3.config={home / 's3.json'}", "-master.volumeSizeLimitMB=256", "-volume.max=40",
                   "-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())]  # fmt: skip
        log = stack.enter_context((home / "log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield _with_bucket(Server("SeaweedFS", f"http://127.0.0.1:{ports['s3.port']}"))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def client(server: Server):  # boto3 makes its types at run time
    """A client of another make, to look at, and to damage, what the lake wrote."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        region_name="us-east-1", config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip


def _with_bucket(server: Server) -> Server:
    """Waits until a bucket can be made and written to."""
    from botocore.exceptions import BotoCoreError, ClientError

    asked, until = client(server), time.monotonic() + READY_S
    while True:
        try:
            asked.create_bucket(Bucket=server.bucket)
            asked.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            return server
        except (BotoCoreError, ClientError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _free(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
