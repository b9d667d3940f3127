#!/usr/bin/env bash
# tests/emulators/with.sh COMMAND…   runs a command beside emulators of Google Cloud Storage and Azure Blob Storage, then ends them.
#
# They hold everything in memory and listen on loopback, on free ports. The command finds
#   FOREBAY_TEST_GCS_URL     gs://forebay-tests?endpoint=…, as `--under` takes it; GOOGLE_SKIP_SIGNATURE goes with it
#   FOREBAY_TEST_AZURE_URL   az://forebay-tests?account=…&endpoint=…; AZURE_STORAGE_ACCOUNT_KEY goes with it
#   FOREBAY_GCS_PID, FOREBAY_AZURE_PID, for tests that stop one
# An emulator that tests/setup.sh could not install is said to be missing, and its variable is not set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
emulators=$here/../../.venv/emulators
home=$(mktemp -d /tmp/forebay-emulators-XXXXXX)
pids=()

end() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  rm -rf "$home"
}
trap end EXIT

read -r gcs azure < <(python3 - <<'PY'
import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in taken))
PY
)

wait_for() { # wait_for NAME PORT
  for _ in $(seq 150); do
    (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
    sleep 0.1
  done
  tail -n 5 "$home/$1.log" >&2
  echo "$1 did not come up" >&2
  exit 1
}

bucket=forebay-tests
if [ -x "$emulators/bin/fake-gcs-server" ]; then
  "$emulators/bin/fake-gcs-server" -scheme http -host 127.0.0.1 -port "$gcs" -backend memory -log-level error >"$home/gcs.log" 2>&1 &
  pids+=($!)
  export FOREBAY_GCS_PID=$!
  wait_for gcs "$gcs"
  curl -sSf --retry 10 --retry-delay 1 --retry-all-errors -o /dev/null -H 'Content-Type: application/json' -d "{\"name\": \"$bucket\"}" "http://127.0.0.1:$gcs/storage/v1/b?project=tests"
  export FOREBAY_TEST_GCS_URL="gs://$bucket?endpoint=http://127.0.0.1:$gcs" GOOGLE_SKIP_SIGNATURE=true
else
  echo "skipped: fake-gcs-server could not be installed here, so nothing of gs:// is tested" >&2
fi
if [ -e "$emulators/node_modules/azurite" ]; then
  AZURE_STORAGE_ACCOUNT_KEY=$(head -c 32 /dev/urandom | base64 -w0)
  export AZURE_STORAGE_ACCOUNT_KEY
  AZURITE_ACCOUNTS="forebay:$AZURE_STORAGE_ACCOUNT_KEY" node "$emulators/node_modules/azurite/dist/src/blob/main.js" \
    --blobHost 127.0.0.1 --blobPort "$azure" --inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck \
    >"$home/azure.log" 2>&1 &
  pids+=($!)
  export FOREBAY_AZURE_PID=$!
  wait_for azure "$azure"
  python3 "$here/container.py" "http://127.0.0.1:$azure/forebay" forebay "$bucket"
  export FOREBAY_TEST_AZURE_URL="az://$bucket?account=forebay&endpoint=http://127.0.0.1:$azure/forebay"
else
  echo "skipped: Azurite could not be installed here, so nothing of az:// is tested" >&2
fi

"$@"
