#!/usr/bin/env bash
# Measures an experiment on a board and holds it against the figures of the main branch: what the pipelines run.
#
#   ci/bench.sh BOARD EXPERIMENT
#
# Writes target/bench/summary.md for people, target/bench/comment.md with as much of it as a comment may have, and
# target/bench/junit.xml for machines. Environment:
#   SAVE_BASELINE=yes   make this run the baseline (on the main branch) instead of judging it
#   BASELINE_RUNS=3     how often the baseline is measured; from three on, checks know how much runs differ by themselves
#   COMMENT_BYTES=64000 longest comment: GitHub takes 65,536 characters, GitLab 1,000,000
#   REPORT=PLACE        where readers of a comment that is shortened find the whole summary
#   EDGEPIPE=COMMAND    instead of `cargo xtask`
#
# Exit codes are those of `cargo xtask`: 0 fine, 1 regression, 2 usage or configuration, 3 board, 4 a trial failed or
# was voided.
set -euo pipefail

board=${1:?name a board: ci/bench.sh BOARD EXPERIMENT}
experiment=${2:?name an experiment: ci/bench.sh BOARD EXPERIMENT}
read -ra edgepipe <<<"${EDGEPIPE:-cargo xtask}"
baseline="main-$board-$experiment"
out=target/bench
rm -rf "$out"
mkdir -p "$out"

# However this ends: the comment is made of the summary, if there is one.
report=${REPORT:-"\`$out/summary.md\` among the files of this job"}
trap 'if [ -f "$out/summary.md" ]; then
  "$(dirname "$0")/shorten.sh" "$out/summary.md" "${COMMENT_BYTES:-64000}" "$report" >"$out/comment.md"
fi' EXIT

# Prints the name of the run and leaves its report in $out/report.md.
measure() {
  local code=0
  "${edgepipe[@]}" bench --board "$board" --experiment "$experiment" --format json >"$out/report.json" || code=$?
  # 4 leaves a report that says what was voided; the others leave none.
  if [ "$code" -ne 0 ] && [ "$code" -ne 4 ]; then
    echo "The bench of \`$experiment\` on \`$board\` ended with exit code $code: see the log." >"$out/summary.md"
    return "$code"
  fi
  local run
  run=$(sed -n '/"run": {/,/}/s/^ *"id": "\(.*\)",$/\1/p' "$out/report.json")
  "${edgepipe[@]}" report --run "$run" --format markdown >"$out/report.md" || return
  echo "$run"
  return "$code"
}

# Puts the pieces together for the pull request.
summarise() {
  {
    echo "### $experiment on $board"
    echo
    cat "$1"
    echo
    echo "<details><summary>All figures</summary>"
    echo
    cat "$out/report.md"
    echo
    echo "</details>"
  } >"$out/summary.md"
}

code=0
if [ "${SAVE_BASELINE:-}" = yes ]; then
  runs=()
  for _ in $(seq "${BASELINE_RUNS:-3}"); do
    run=$(measure) || code=$?
    if [ "$code" -ne 0 ]; then
      if [ -n "$run" ]; then
        echo "No new baseline: a trial failed or was voided." >"$out/check.md"
        summarise "$out/check.md"
      fi
      exit "$code"
    fi
    runs+=(--run "$run")
  done
  "${edgepipe[@]}" baseline save "$baseline" "${runs[@]}"
  echo "This is the baseline for pull requests now, of ${BASELINE_RUNS:-3} runs." >"$out/check.md"
  summarise "$out/check.md"
  exit 0
fi

run=$(measure) || code=$?
if [ -z "$run" ]; then
  exit "$code"
fi
if [ -f "results/baselines/$baseline.json" ]; then
  checked=0
  "${edgepipe[@]}" check --against "$baseline" --run "$run" \
    --write "markdown=$out/check.md" --write "junit=$out/junit.xml" || checked=$?
  # A regression is told before a trial that was lost.
  if [ "$checked" -ne 0 ]; then
    code=$checked
  fi
fi
if [ ! -f "$out/check.md" ]; then
  echo "No comparison: there is no usable baseline \`$baseline\` of the main branch yet." >"$out/check.md"
fi
summarise "$out/check.md"
exit "$code"
