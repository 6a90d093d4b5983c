#!/usr/bin/env bash
# Checks and measures edgepipe's GPU stages on this machine, which needs an NVIDIA GPU and its driver.
#
#   ci/gpu.sh prepare [ARCH]   build everything and compile the zoo for ARCH (default sm_90); needs no GPU
#   ci/gpu.sh                  measure; at most 8 minutes if everything was prepared
#
# Writes target/gpu/kernels.md (outputs against ONNX Runtime, times of kernels, launches, graphs and copies, and cuDNN's
# times if it is installed) and target/gpu/bench.md (a pipeline of CPUs and GPU against each of them alone). Environment:
#   CUDNN=FILE      cuDNN library to compare with; default: the system's
#   LIBCUDA=FILE    driver library; default: libcuda.so.1
#   NETWORKS="A B"  networks of the zoo; default: all for the kernels, and those of the experiment `smoke` for the bench
#
# Exit codes: 0 success; 1 outputs differ, or the times ran out; others are those of `cargo xtask`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=target/edgepipe/toolchain/python/bin/python
out=target/gpu
mkdir -p "$out"
networks=()
for name in ${NETWORKS:-}; do networks+=(--network "$name"); done
measure=(env PYTHONPATH=compiler "$python" compiler/tools/measure_gpu.py --out "$out/compiled" "${networks[@]}")

if [ "${1:-}" = prepare ]; then
  cargo xtask build
  exec "${measure[@]}" --prepare "${2:-sm_90}"
fi

result=0
timeout 300 "${measure[@]}" ${CUDNN:+--cudnn "$CUDNN"} ${LIBCUDA:+--library "$LIBCUDA"} >"$out/kernels.md" || result=1
cat "$out/kernels.md"
if [ -n "${LIBCUDA:-}" ]; then export EDGEPIPE_LIBCUDA="$LIBCUDA"; fi
timeout 170 cargo xtask bench --board local --experiment smoke "${networks[@]}"
cargo xtask report --format markdown >"$out/bench.md"
cat "$out/bench.md"
exit "$result"
