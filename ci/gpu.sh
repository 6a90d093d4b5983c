#!/usr/bin/env bash
# Checks and measures edgepipe's GPU stages on this machine, which needs an NVIDIA GPU and its driver.
#
#   ci/gpu.sh prepare [ARCH]   build everything and compile the zoo for ARCH (such as sm_90; needs no GPU), or for
#                              this machine's GPU
#   ci/gpu.sh                  measure; at most 8 minutes if everything was prepared
#
# Writes target/gpu/kernels.md (outputs against ONNX Runtime, times of kernels, launches, graphs and copies, and cuDNN's
# times if it is installed) and target/gpu/bench.md (a pipeline of CPUs and GPU against each of them alone). Environment:
#   CUDNN=FILE      cuDNN library to compare with; default: the dynamic linker's. The wheel nvidia-cudnn-cu12 has it as
#                   site-packages/nvidia/cudnn/lib/libcudnn.so.9
#   LIBCUDA=FILE    driver library; default: libcuda.so.1
#   NETWORKS="A B"  networks of the zoo; default: all for the kernels, and those of the experiment `smoke` for the bench
#
# Exit codes: 0 success; 1 outputs differ, nothing can be measured, or the time ran out; 2 not prepared, or wrong
# arguments; others are those of `cargo xtask`. Standard error says which.
set -euo pipefail

fail() { # CODE MESSAGE
  echo "ci/gpu.sh: $2" >&2
  exit "$1"
}

within() { # SECONDS COMMAND...: exit code 1 and a message if the time runs out
  local code=0
  timeout "$@" || code=$?
  if [ "$code" = 124 ]; then
    echo "ci/gpu.sh: failed to finish within $1 s: ${*:2}; prepare first, or name fewer NETWORKS" >&2
    return 1
  fi
  return "$code"
}

# Paths are relative to the folder in which this script was started.
for name in CUDNN LIBCUDA; do
  case "${!name:-}" in
    */*) [ -f "${!name}" ] || fail 2 "failed to find $name=${!name}"
      export "$name=$(realpath "${!name}")" ;;
  esac
done
cd "$(dirname "$0")/.."
python=target/edgepipe/toolchain/python/bin/python
out=target/gpu
mkdir -p "$out"
networks=()
for name in ${NETWORKS:-}; do networks+=(--network "$name"); done
measure=(env PYTHONPATH=compiler "$python" compiler/tools/measure_gpu.py --out "$out/compiled" "${networks[@]}"
  ${CUDNN:+--cudnn "$CUDNN"} ${LIBCUDA:+--library "$LIBCUDA"})

case "${1:-}" in
  prepare)
    [ $# -le 2 ] || fail 2 "usage: ci/gpu.sh [prepare [ARCH]]"
    cargo xtask build
    exec "${measure[@]}" --prepare ${2:+"$2"}
    ;;
  "") ;;
  *) fail 2 "usage: ci/gpu.sh [prepare [ARCH]]" ;;
esac
[ -x "$python" ] || fail 2 "failed to find $python; run \`ci/gpu.sh prepare\` first"

result=0
within 300 "${measure[@]}" >"$out/kernels.md" || result=$?
cat "$out/kernels.md"
if [ -n "${LIBCUDA:-}" ]; then export EDGEPIPE_LIBCUDA="$LIBCUDA"; fi
bench=0
within 170 cargo xtask bench --board local --experiment smoke "${networks[@]}" || bench=$?
# With 4, some trials failed or are void; the report shows which.
if [ "$bench" = 0 ] || [ "$bench" = 4 ]; then
  cargo xtask report --format markdown >"$out/bench.md"
  cat "$out/bench.md"
fi
[ "$result" != 0 ] || result=$bench
exit "$result"
