#!/usr/bin/env bash
# Runs every suite in one pytest, hence one summary. Called by `make test`.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin" # where Debian keeps the daemons, which are not on everybody's path

suites=(tests/slurm tests/train tests/failures tests/unit)
missing=()
for program in slurmctld slurmd munged slurmdbd mariadbd; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
    suites=("${suites[@]:1}")
fi

# Two at a time, a file each: half of the tests wait for Slurm or for a training. The files with the long tests first,
# or one of them would be the last and alone.
.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder "${suites[@]}" "$@"
code=$?

if ((${#missing[@]})); then
    printf '\n%s\n' "NOT RUN: tests/slurm, because these are not installed: ${missing[*]}" \
        "On Debian or Ubuntu: sudo apt-get install munge slurm-wlm slurmdbd slurm-wlm-mysql-plugin mariadb-server"
    [[ -z ${CI:-} ]] || exit 1
fi
exit "$code"
