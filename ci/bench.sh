#!/usr/bin/env bash
# Measures an experiment on a board and compares it with the baseline of the main branch. The pipelines run this script.
#
#   ci/bench.sh BOARD EXPERIMENT
#
# BOARD may be a board of a farm (`match` in its file): the job then waits in the coordinator's queue.
#
# Writes to target/bench: summary.md, comment.md (the summary, shortened to the limit of a comment), run.xml (the schedules as
# JUnit tests), junit.xml (the comparisons as JUnit tests) and bench.log. Environment:
#   SAVE_BASELINE=yes   save a new baseline (on the main branch) instead of checking
#   BASELINE_RUNS=3     number of runs in the baseline; from three or more, checks estimate how much runs differ
#   COMMENT_BYTES=64000 limit for comments: GitHub allows 65,536 characters, GitLab 1,000,000
#   REPORT=PLACE        where readers of a shortened comment find the whole summary
#   EDGEPIPE=COMMAND    command to use instead of `cargo xtask`
#
# Exit codes are those of `cargo xtask`: 0 success, 1 regression, 2 usage or configuration, 3 board, 4 a trial failed or
# is void.
set -euo pipefail

board=${1:?name a board: ci/bench.sh BOARD EXPERIMENT}
experiment=${2:?name an experiment: ci/bench.sh BOARD EXPERIMENT}
read -ra edgepipe <<<"${EDGEPIPE:-cargo xtask}"
baseline="main-$board-$experiment"
out=target/bench
rm -rf "$out"
mkdir -p "$out"

# On every exit: write the comment from the summary, if there is one.
report=${REPORT:-"\`$out/summary.md\` among the files of this job"}
trap 'if [ -f "$out/summary.md" ]; then
  "$(dirname "$0")/shorten.sh" "$out/summary.md" "${COMMENT_BYTES:-64000}" "$report" >"$out/comment.md"
fi' EXIT

# Measures, writes $out/report.md, and prints the id of the run.
measure() {
  local code=0
  {
    "${edgepipe[@]}" bench --board "$board" --experiment "$experiment" --format json 2>&1 >&3 | tee "$out/bench.log" >&2
  } 3>"$out/report.json" || code=$?
  # With exit code 4 there is a report that shows the void trials; with other errors there is none.
  if [ "$code" -ne 0 ] && [ "$code" -ne 4 ]; then
    {
      echo "The bench of \`$experiment\` on \`$board\` ended with exit code $code: see the log."
      echo
      echo '```'
      grep '^error: ' "$out/bench.log" || tail -n 3 "$out/bench.log"
      echo '```'
    } >"$out/summary.md"
    return "$code"
  fi
  local run
  run=$(sed -n '/"run": {/,/}/s/^ *"id": "\(.*\)",$/\1/p' "$out/report.json")
  "${edgepipe[@]}" report --run "$run" --format markdown >"$out/report.md" || return
  "${edgepipe[@]}" report --run "$run" --format junit >"$out/run.xml" || return
  echo "$run"
  return "$code"
}

# Writes the summary from the comparison in the given file and the report.
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
        echo "No new baseline: a trial failed or is void." >"$out/check.md"
        summarise "$out/check.md"
      fi
      exit "$code"
    fi
    runs+=(--run "$run")
  done
  "${edgepipe[@]}" baseline save "$baseline" "${runs[@]}"
  echo "New baseline for pull requests, from ${BASELINE_RUNS:-3} runs." >"$out/check.md"
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
  # The exit code of the check has priority over that of the bench.
  if [ "$checked" -ne 0 ]; then
    code=$checked
  fi
fi
if [ ! -f "$out/check.md" ]; then
  echo "No comparison: there is no usable baseline \`$baseline\` of the main branch yet." >"$out/check.md"
fi
summarise "$out/check.md"
exit "$code"
