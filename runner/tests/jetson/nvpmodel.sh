#!/bin/sh
# Stands in for NVIDIA's nvpmodel in tests: same options, same words, and it changes the files below ../sys as the real
# one changes sysfs. Its table is ../modes: number, name, CPUs online, highest kHz, highest Hz of the GPU; a sixth word
# "ask" marks a mode that needs a restart.
here=$(dirname "$0")/..
cpu=$here/sys/devices/system/cpu
gpu=$here/sys/devices/17000000.gp10b/devfreq/17000000.gp10b
echo "nvpmodel $*" >> "$here/calls"
case $1 in
-q)
    id=$(cat "$here/mode")
    echo "NVPM WARN: fan mode is not set!"
    while read -r number name rest; do
        [ "$number" = "$id" ] && printf 'NV Power Mode: %s\n%s\n' "$name" "$number"
    done < "$here/modes"
    ;;
-m)
    [ "$(id -u)" = 0 ] || { echo "NVPM ERROR: must be run as root" >&2; exit 1; }
    line=$(grep "^$2 " "$here/modes") || { echo "NVPM ERROR: unknown power mode: $2" >&2; exit 1; }
    set -- $line
    if [ "$6" = ask ]; then
        echo "NVPM WARN: Reboot required for changing to this power mode: $1"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
        read -r answer || { echo "NVPM ERROR: no answer" >&2; exit 255; }
        exit 0
    fi
    for folder in "$cpu"/cpu[0-9]*; do
        # As the kernel: a limit below the other one is refused.
        if [ "$(cat "$folder/cpufreq/scaling_min_freq")" -gt "$4" ]; then
            echo "NVPM ERROR: Error writing $4 to $folder/cpufreq/scaling_max_freq: 22" >&2
            exit 1
        fi
        echo "$4" > "$folder/cpufreq/scaling_max_freq"
    done
    echo "$3" > "$cpu/online"
    echo "$5" > "$gpu/max_freq"
    echo "$1" > "$here/mode"
    ;;
*)
    exit 2
    ;;
esac
