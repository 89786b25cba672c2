#!/usr/bin/env bash
# Executes every instruction of the GPU Dockerfile without a container daemon, then trains in what it built, as the
# image's own user and through its own entry point. Takes minutes and, at its peak, some 11 GB of TMPDIR.
#
# Stand-ins: a Debian release of our making for the base image, and TensorFlow without CUDA for the one with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DEBIAN=bookworm
PYTHON=python3.11 # That release's own: the wheels that are collected outside must fit inside.

skip() {
    echo "image-check is skipped: $1"
    exit 0
}
fail() {
    echo "image-check failed: $1" >&2
    exit 1
}

[[ $(id -u) == 0 ]] || skip "making a root file system needs root."
for tool in buildah debootstrap; do
    command -v "$tool" > /dev/null || skip "$tool is missing; on Debian, apt-get install buildah debootstrap."
done
"$PYTHON" -m pip --version > /dev/null 2>&1 || skip "$PYTHON with pip is missing, which is what Debian $DEBIAN has."

work=$(mktemp -d)
clean_up() {
    # What was interrupted leaves mounts, and a /proc is not to be removed.
    awk -v within="$work/" 'index($2, within) == 1 { print $2 }' /proc/mounts | tac | xargs --no-run-if-empty umount
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
# The isolation that works within a container too.
export BUILDAH_ISOLATION=chroot
store=(--root "$work/storage" --runroot "$work/run")

echo "Collecting wheels."
mkdir "$work/source" "$work/wheels"
cp setup.py pyproject.toml constraints.txt "$work/source"
"$PYTHON" -m pip --quiet wheel --use-pep517 --wheel-dir "$work/wheels" --constraint constraints.txt \
    tensorflow setuptools "$work/source" 2> "$work/pip.log" || { tail "$work/pip.log" >&2; fail "pip."; }
# The network outside may need settings that an image has no business with: inside, the wheels are all there is.
printf '[global]\nno-index = true\nfind-links = /wheels\n' > "$work/pip.conf"

echo "Making the base image."
debootstrap --variant=minbase --include=ca-certificates,python-is-python3,python3-pip,python3-venv \
    "$DEBIAN" "$work/base" > "$work/debootstrap.log" || { tail "$work/debootstrap.log" >&2; fail "debootstrap."; }
container=$(buildah "${store[@]}" from scratch)
buildah "${store[@]}" copy --quiet "$container" "$work/base" / > /dev/null
buildah "${store[@]}" commit --quiet --rm "$container" base > /dev/null
rm -rf --one-file-system "$work/base"

echo "Building the Dockerfile."
buildah "${store[@]}" build --pull-never --format docker --tag checked \
    --build-arg BASE_IMAGE=localhost/base --build-arg TENSORFLOW=tensorflow --build-arg REVISION=checked \
    --volume "$work/wheels:/wheels:ro" --volume "$work/pip.conf:/etc/pip.conf:ro" .

echo "Running what was built."
mapfile -t entrypoint < <(
    buildah "${store[@]}" inspect --type image --format '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' checked |
        sed '/^$/d'
)
container=$(buildah "${store[@]}" from --pull-never checked)
inside() { buildah "${store[@]}" run "$container" -- "$@"; }
trainer() { inside "${entrypoint[@]}" "$@"; }

[[ $(inside id --user) == 1000 ]] || fail "it runs as user $(inside id --user), not 1000."
files=$(inside ls | tr '\n' ' ')
[[ $files == "LICENSE configs launch settings trainer " ]] || fail "beside the trainer there is more, or less: $files"
inside touch trainer/written 2> /dev/null && fail "its user can change the trainer."
inside test -e /opt/venv/bin/pip 2> /dev/null && fail "pip is in the environment."

trainer --help > "$work/help.txt" 2>&1 || true # absl's --help ends with 1.
grep --quiet "allow_cpu" "$work/help.txt" || fail "trainer.main --help does not list its flags."
trainer --strategy=mirrored --workdir=runs/check > "$work/refused.txt" 2>&1 && fail "no GPU, and it trains."
grep --quiet "sees no GPU" "$work/refused.txt" || { cat "$work/refused.txt" >&2; fail "it does not say why it stops."; }
trainer --strategy=mirrored --allow_cpu --workdir=runs/check --config=configs/default.py --config.train.num_epochs=1
inside test -s runs/check/result.json || fail "the run left no result."
inside python -m trainer.recommend --workdir=runs/check --user_id=42 --k=5
echo "image-check passed."
