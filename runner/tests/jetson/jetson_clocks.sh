#!/bin/sh
# Stands in for NVIDIA's jetson_clocks in tests: same options, same words, and it changes the files below ../sys as the
# real one changes sysfs. Like the real one it asks before it writes over a file, and stores no highest frequencies.
here=$(dirname "$0")/..
cpu=$here/sys/devices/system/cpu
gpu=$here/sys/devices/17000000.gp10b/devfreq/17000000.gp10b
emc=$here/sys/kernel/debug/bpmp/debug/clk/emc
echo "jetson_clocks $1" >> "$here/calls"
[ "$(id -u)" = 0 ] || { echo "Error: Run this script($0) as a root user"; exit 1; }
case $1 in
--show)
    echo "SOC family:tegra186  Machine:quill"
    echo "EMC MinFreq=40800000 MaxFreq=1866000000 CurrentFreq=1600000000 FreqOverride=0"
    ;;
--store)
    if [ -e "$2" ]; then
        echo "File $2 already exists. Can I overwrite it? Y/N:"
        read -r answer
        [ "$answer" = y ] || { echo "Error: file $2 already exists!"; exit 1; }
    fi
    for file in "$cpu"/cpu[0-9]*/cpufreq/scaling_min_freq "$gpu/min_freq" "$emc/rate" "$emc/mrq_rate_locked"; do
        [ -e "$file" ] || continue
        echo "$file:$(cat "$file")" >> "$2"
    done
    ;;
--restore)
    [ -e "$2" ] || { echo "Error: $2 file not found !"; exit 1; }
    [ -e "$here/broken" ] && { echo "Error: Failed to restore"; exit 0; }
    while IFS=: read -r file data; do
        echo "$data" > "$file"
        case $file in
        *scaling_min_freq) echo "$data" > "$(dirname "$file")/scaling_cur_freq" ;;
        esac
    done < "$2"
    ;;
'')
    for folder in "$cpu"/cpu[0-9]*/cpufreq; do
        [ -e "$here/stuck" ] || cat "$folder/scaling_max_freq" > "$folder/scaling_min_freq"
        cat "$folder/scaling_max_freq" > "$folder/scaling_cur_freq"
    done
    cat "$gpu/max_freq" > "$gpu/min_freq"
    if [ -e "$emc" ]; then
        cat "$emc/max_rate" > "$emc/rate"
        echo 1 > "$emc/mrq_rate_locked"
    fi
    ;;
*)
    exit 2
    ;;
esac
