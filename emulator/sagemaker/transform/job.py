"""One transform job, from listing its inputs to the last output."""

from __future__ import annotations

import asyncio
import http
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from emulator.platform.awsapi import Payload
from emulator.platform.host import Host
from emulator.platform.store import Record
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.endpoints.fleet import FleetError, Variant
from emulator.sagemaker.resources import Resources
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import JobFailed, JobStopped, Run
from emulator.sagemaker.serving.http_client import ServerFailed, ServerUnreachable
from emulator.sagemaker.serving.instance import Instance
from emulator.sagemaker.transform.records import Batch, ObjectFailed, Records

LOG_GROUP = "/aws/sagemaker/TransformJobs"
#: What AWS assumes where the request does not say otherwise.
_DEFAULT_TIMEOUT_SECONDS = 600
_DEFAULT_RETRIES = 3
_RETRY_PAUSE_SECONDS = 0.2
_POLL_SECONDS = 0.05
_QUOTED_CHARACTERS = 300
_STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}


class InputObject(NamedTuple):
    """One input; `name` is where it lies below the prefix, and where its output will lie."""

    bucket: str
    key: str
    name: str


def find_inputs(s3: Any, source: Payload) -> list[InputObject]:
    """The objects of an ``S3DataSource``, in the order of their keys or of the manifest; ArtifactError for none."""
    bucket, key = artifacts.parse_s3_url(source["S3Uri"])
    if source["S3DataType"] == "ManifestFile":
        bucket, listed = artifacts.read_manifest(s3, bucket, key)
        inputs = [InputObject(bucket, *found) for found in listed]
    else:
        keys = artifacts.list_keys(s3, bucket, key)
        inputs = [InputObject(bucket, found, artifacts.relative_key(found, key)) for found in keys]
    if not inputs:
        raise ArtifactError(f"there are no objects under {source['S3Uri']}.")
    return inputs


class TransformRun(Run):
    """The work of one transform job, whose record has that of its model under ``Model``.

    As on AWS, an object that fails does not keep the others from being transformed: it has no output, its instance's
    log says why, and the job ends as Failed once all have had their turn.
    """

    def __init__(self, jobs: Resources, job: Record, host: Host) -> None:
        super().__init__(jobs, job)
        self._host = host
        self._directory = host.folder / "transform" / self._region / self._name
        self._servers = Variant(
            host,
            self._region,
            {"VariantName": self._name, "Weight": 1.0, "Variant": {}, "Model": _with_environment(job)},
            self._directory,
            title=f"transform job {self._name}",
            log_group=LOG_GROUP,
            log_suffix=f"-{int(time.time())}",
        )
        client = job.get("ModelClientConfig", {})
        self._timeout: int = client.get("InvocationsTimeoutInSeconds", _DEFAULT_TIMEOUT_SECONDS)
        self._retries: int = client.get("InvocationsMaxRetries", _DEFAULT_RETRIES)
        self._records = Records(job)
        self._failures: list[tuple[InputObject, ObjectFailed]] = []

    def request_stop(self) -> None:
        super().request_stop()
        # Waiting for a server ends with it.
        threading.Thread(target=self._servers.stop, args=(False,), name="stop", daemon=True).start()

    def _clean_up(self) -> None:
        self._servers.stop(drain=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write_end(self, record: Record, status: str, reason: str | None) -> None:
        if self._stop_requested.is_set():  # whatever failed meanwhile, failed because the servers were stopped
            status, reason = "Stopped", None
        super()._write_end(record, status, reason)

    def _work(self) -> str:
        shutil.rmtree(self._directory, ignore_errors=True)
        role = Role(self._host, self._job["Model"]["ExecutionRoleArn"], self._region)
        s3 = role.client("s3")
        try:
            inputs = find_inputs(s3, self._job["TransformInput"]["DataSource"]["S3DataSource"])
        except ArtifactError as error:
            raise JobFailed(
                f"ClientError: Data download failed. Please ensure that the role {role.arn} may list and read the "
                f"input: {error}"
            ) from None
        self._change(lambda record: record.setdefault("TransformStartTime", time.time()))
        try:
            self._servers.prepare()
            self._servers.resize(self._job["TransformResources"]["InstanceCount"])
        except FleetError as error:
            raise JobFailed(f"AlgorithmError: {error}") from None
        asyncio.run(self._transform(s3, inputs))
        if self._failures:
            item, first = self._failures[0]
            client = all(str(failure).startswith("ClientError") for _, failure in self._failures)
            raise JobFailed(
                f"{'ClientError' if client else 'AlgorithmError'}: See job logs for more information. "
                f"{len(self._failures)} of {len(inputs)} objects have no output; s3://{item.bucket}/{item.key}: {first}"
            )
        return "Completed"

    async def _transform(self, s3: Any, inputs: list[InputObject]) -> None:
        instances = self._servers.instances
        concurrency = self._job.get("MaxConcurrentTransforms") or 1
        shares = [iter(inputs[number :: len(instances)]) for number in range(len(instances))]
        # Of an instance's objects, and of the batches that they are split into, so many requests are under way.
        workers = [(*pair, asyncio.Semaphore(concurrency)) for pair in zip(instances, shares, strict=True)]
        await asyncio.gather(*(self._work_through(s3, *worker) for worker in workers for _ in range(concurrency)))

    async def _work_through(
        self, s3: Any, instance: Instance, share: Iterator[InputObject], requests: asyncio.Semaphore
    ) -> None:
        for item in share:
            try:
                content = await asyncio.to_thread(self._read, s3, item)
                output = await self._transform_object(instance, content, requests)
                await asyncio.to_thread(self._write, s3, item, output)
            except ObjectFailed as failure:
                self._failures.append((item, failure))
                instance.log.write(f"[sagemaker logs]: {item.bucket}/{item.key}: {failure}")
            if self._stop_requested.is_set():
                raise JobStopped("Stopped")

    def _read(self, s3: Any, item: InputObject) -> bytes:
        try:
            return artifacts.read(s3, item.bucket, item.key, self._records.read_limit)
        except ArtifactError as error:
            raise ObjectFailed(f"ClientError: Data download failed: {error}") from None

    async def _transform_object(self, instance: Instance, content: bytes, requests: asyncio.Semaphore) -> bytes:
        async def transform(batch: Batch) -> bytes:
            async with requests:
                answer = await self._invoke(instance, batch.body)
            return await asyncio.to_thread(self._records.finish, batch, answer)

        batches = await asyncio.to_thread(lambda: list(self._records.batches(content)))
        try:
            async with asyncio.TaskGroup() as group:  # the first batch that fails ends the others
                tasks = [group.create_task(transform(batch)) for batch in batches]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return b"".join(task.result() for task in tasks)

    async def _invoke(self, instance: Instance, body: bytes) -> bytes:
        """Ask the server, again where that may help."""
        headers = {"content-type": self._job["TransformInput"].get("ContentType", "application/octet-stream")}
        if "Accept" in self._job["TransformOutput"]:
            headers["accept"] = self._job["TransformOutput"]["Accept"]
        for attempt in range(self._retries + 1):
            await asyncio.sleep(attempt * _RETRY_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self._timeout):
                    while (pool := instance.pool) is None:  # being restarted
                        if self._stop_requested.is_set():
                            raise JobStopped("Stopped")
                        await asyncio.sleep(_POLL_SECONDS)
                    answer = await pool.post("/invocations", headers, body)
            except TimeoutError:
                problem = f"Model server did not respond to /invocations request within {self._timeout} seconds"
            except (ServerUnreachable, ServerFailed) as error:
                if self._stop_requested.is_set():
                    raise JobStopped("Stopped") from None
                problem = f"Unable to get response from algorithm: {error}"
            else:
                instance.answered += 1
                if 200 <= answer.status < 300:
                    return answer.body
                quoted = answer.body[:_QUOTED_CHARACTERS].decode(errors="replace")
                problem = f"Bad HTTP status received from algorithm: {answer.status}. Message: {quoted}"
                if 400 <= answer.status < 500 and answer.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                    raise ObjectFailed(f"ClientError: {problem}")
        raise ObjectFailed(f"AlgorithmError: {problem}")

    def _write(self, s3: Any, item: InputObject, answer: bytes) -> None:
        output = self._job["TransformOutput"]
        bucket, prefix = artifacts.parse_s3_url(output["S3OutputPath"])
        key = "/".join(filter(None, (prefix.strip("/"), f"{item.name}.out")))
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=answer, **artifacts.encryption(output))
        except (ClientError, BotoCoreError) as error:
            message = f"ClientError: Uploading to s3://{bucket}/{key} failed: {artifacts.reason(error)}"
            raise ObjectFailed(message) from None


def _with_environment(job: Record) -> Payload:
    """The job's model, its container told what the job sets and that they run in a batch."""
    given = {"SAGEMAKER_BATCH": "true"}
    for member, name in (
        ("MaxPayloadInMB", "SAGEMAKER_MAX_PAYLOAD_IN_MB"),
        ("MaxConcurrentTransforms", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"),
        ("BatchStrategy", "SAGEMAKER_BATCH_STRATEGY"),
    ):
        if member in job:
            given[name] = _STRATEGIES.get(job[member], str(job[member]))
    container = job["Model"]["PrimaryContainer"]
    environment = {**container.get("Environment", {}), **job.get("Environment", {}), **given}
    return {**job["Model"], "PrimaryContainer": {**container, "Environment": environment}}
