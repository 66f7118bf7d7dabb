#!/usr/bin/env bash
# Builds the image and runs it as a cluster would: without root, with only /dev/shm, /tmp and the cache
# writable. Requires podman as root. If the base image cannot be pulled, a substitute is built. Exit code 77:
# the machine cannot run this.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() { echo "skipped: $1"; exit 77; }
command -v podman > /dev/null || skip "podman is not installed"
[ "$(id -u)" = 0 ] || skip "not root"

# Settings that podman needs inside a container. CONTAINERS_CONF overrides them.
if [ -z "${CONTAINERS_CONF:-}" ]; then
  CONTAINERS_CONF=$(mktemp)
  export CONTAINERS_CONF
  printf '[containers]\nnetns="host"\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\nruntime="runc"\n' > "$CONTAINERS_CONF"
fi
podman info > /dev/null 2>&1 || skip "podman does not work here"

base=$(sed -nE 's/^ARG NODE_IMAGE=//p' deploy/container/Dockerfile)
if ! podman image exists "$base" && ! timeout 60 podman pull --quiet "$base" > /dev/null 2>&1; then
  command -v debootstrap > /dev/null || skip "$base cannot be pulled, and debootstrap is not installed to build a substitute"
  deploy/container/stand-in-base.sh "$base"
fi

podman build --isolation=chroot --network=host -f deploy/container/Dockerfile -t onecopy:try .
echo "image: $(podman image inspect --format '{{.Size}}' onecopy:try) bytes, base: $(podman image inspect --format '{{.Size}}' "$base") bytes"

if podman run --rm --entrypoint sh onecopy:try -c 'command -v g++ || command -v gcc || command -v make || command -v python3'; then
  echo "a build tool is in the final stage" >&2
  exit 1
fi
podman run --rm --entrypoint sh onecopy:try -c '[ "$(id -u)" = 1000 ] && locale -a' | grep -qx en_US.utf8

# The runtime rejects this model if the locale is missing.
strings=$(realpath ../shared/onnx-node-tests/simple/test_strnorm_model_monday_casesensintive_upper 2> /dev/null || true)
if [ -d "$strings" ]; then
  podman run --rm --read-only --tmpfs /tmp --volume "$strings:/strings:ro" onecopy:try inspect /strings/model.onnx --no-measure > /dev/null
  echo "StringNormalizer: served"
fi

name=onecopy-try-$$
port=$((20000 + RANDOM % 10000))
podman run --detach --name "$name" --read-only --read-only-tmpfs=false --tmpfs /tmp:size=64m --shm-size=64m --cap-drop=ALL \
  --security-opt=no-new-privileges --volume "$name:/var/cache/onecopy:U" onecopy:try \
  serve --workers 2 --host 127.0.0.1 --port "$port" --admin-port $((port + 1)) > /dev/null
trap 'podman rm --force --time 0 "$name" > /dev/null 2>&1 || true; podman volume rm --force "$name" > /dev/null 2>&1 || true' EXIT
for _ in $(seq 300); do curl --silent --fail --output /dev/null "http://127.0.0.1:$((port + 1))/v2/health/ready" && break; sleep 0.2; done
if ! curl --silent --fail --data @models/logp/sample-request.json "http://127.0.0.1:$port/v2/models/logp/infer"; then
  podman logs "$name" >&2
  exit 1
fi
echo
podman stop --time 45 "$name" > /dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
echo "SIGTERM: exit code $code"
[ "$code" = 0 ]
