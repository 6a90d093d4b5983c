#!/usr/bin/env bash
# Takes screenshots of a run for results/tables/shots: the HTML report on a desktop, on a phone, in dark mode and printed, and
# the LaTeX table.
#
#   ci/browser/shots.sh [RUN [FOLDER]]       default: the latest run, results/tables/shots
#
# Needs Node.js with npm, Chromium, pdflatex with booktabs, and pdftoppm (Debian: poppler-utils).
set -euo pipefail
cd "$(dirname "$0")/../.."
run=(${1:+--run "$1"})
folder=$(realpath --canonicalize-missing "${2:-results/tables/shots}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
cp ci/browser/{package.json,package-lock.json,check.mjs} "$work"
npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error
cargo xtask report "${run[@]}" --format html --output "$work/report.html"
cargo xtask report "${run[@]}" --format latex --output "$work/table.tex"
node "$work/check.mjs" --shots "$work" "$work/report.html"
(cd "$work" && pdflatex -interaction=nonstopmode -halt-on-error table.tex >/dev/null)
pdftoppm -r 80 -singlefile -png "$work/report-print.pdf" "$work/report-print"
pdftoppm -r 110 -singlefile -x 0 -y 0 -W 1290 -H 420 -png "$work/table.pdf" "$work/table"
cp "$work"/report-{desktop,dark,phone,print}.png "$work/table.png" "$folder"
ls -l "$folder"
