#!/usr/bin/env bash
# Shortens a Markdown report to at most BYTES bytes.
#
#   ci/shorten.sh FILE BYTES WHERE
#
# Only whole lines are removed. Open `<details>` elements and code blocks are closed. The last line states how many lines are
# missing, and WHERE the whole report is.
set -euo pipefail

file=${1:?name a report: ci/shorten.sh FILE BYTES WHERE}
bytes=${2:?name a number of bytes: ci/shorten.sh FILE BYTES WHERE}
where=${3:?name the place of the whole report: ci/shorten.sh FILE BYTES WHERE}

# In this locale awk counts bytes.
LC_ALL=C awk -v limit="$bytes" -v where="$where" '
  # How many more elements are open after a line than before it.
  function opened(line,    rest) {
    rest = line
    return gsub(/<details[ >]/, "", rest) - gsub(/<\/details>/, "", rest)
  }
  function note(lines, rows) {
    return "**Shortened:** " lines (lines == 1 ? " line" : " lines") " left out here, " \
      rows (rows == 1 ? " row" : " rows") " of tables among them; the whole report is in " where "."
  }
  # The text that must follow the kept lines.
  function closing(depth, fenced, lines, rows,    text) {
    text = fenced ? "```\n" : ""
    while (depth-- > 0) text = text "\n</details>\n"
    return text "\n" note(lines, rows) "\n"
  }
  { line[NR] = $0; size += length($0) + 1; if ($0 ~ /^\|/) rows++ }
  END {
    if (size <= limit) {
      for (i = 1; i <= NR; i++) print line[i]
      exit
    }
    # Keep as many lines as leave room for the closing text.
    for (i = 0; i <= NR; i++) {
      if (i > 0) {
        used += length(line[i]) + 1
        depth += opened(line[i])
        if (line[i] ~ /^```/) fenced = !fenced
        if (line[i] ~ /^\|/) kept_rows++
      }
      if (used + length(closing(depth, fenced, NR - i, rows - kept_rows)) > limit) continue
      last = i; last_depth = depth; last_fenced = fenced; last_rows = kept_rows
    }
    for (i = 1; i <= last; i++) print line[i]
    printf "%s", closing(last_depth, last_fenced, NR - last, rows - last_rows)
  }
' "$file"
