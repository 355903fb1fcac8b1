#!/bin/bash
# Run as root, by cloud-init when the instance starts; its output is the instance's console output.

# Before anything can hang or fail: nothing that happens later keeps the instance beyond this. Shutting down ends it for
# good, because the launch template says so.
shutdown -P +{{limit_minutes}} || { poweroff; exit 1; }
trap 'shutdown -P now' EXIT

# A restart (a kernel panic, a repair of the host) forgets the limit and the training, and cloud-init would not run this
# again: the instance would idle for ever. Without cloud-init's mark it does, and finds the folder below there already.
rm -f "${0%/*}"/../sem/config[-_]scripts[-_]user*

export PATH="/opt/pytorch/bin:$PATH" AWS_DEFAULT_REGION="{{region}}"
folder="${HOME:-/root}/training"  # not /tmp, which is memory
mkdir "$folder" && cd "$folder" || exit 1

for attempt in 1 2 3 4 5; do
    if python - <<'END'
import boto3

boto3.client("s3").download_file("{{program_bucket}}", "{{program_key}}", "program.zip")
END
    then
        break
    fi
    echo "The training program could not be fetched (attempt $attempt)."
    sleep $((attempt * 5))
done

python program.zip --bucket "{{data_bucket}}" --log-group "{{log_group}}" --folder "$folder"
