#!/usr/bin/env bash
# Runs every suite in one pytest, hence one summary. Called by `make test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH="$PATH:/usr/sbin:/sbin" # where Debian keeps the daemons, which are not on everybody's path

# The longest files first, then by turns one that mostly waits for Slurm and one that trains, then the many short tests.
long=(tests/slurm/test_runs.py tests/train/test_local_runs.py tests/slurm/test_chaos.py tests/train/test_distributed.py)
mapfile -t turns < <(paste -d '\n' <(ls tests/slurm/test_*.py) <(ls tests/train/test_*.py) | grep .)
suites=("${long[@]}" "${turns[@]}" tests/failures tests/unit)
missing=()
for program in slurmctld slurmd munged slurmdbd mariadbd; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
    suites=(tests/train tests/failures tests/unit)
fi

# Three at a time, a file each.
.venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder "${suites[@]}" "$@"
code=$?

if ((${#missing[@]})); then
    printf '\n%s\n' "NOT RUN: tests/slurm, because these are not installed: ${missing[*]}" \
        "On Debian or Ubuntu: sudo apt-get install munge slurm-wlm slurmdbd slurm-wlm-mysql-plugin mariadb-server"
    [[ -z ${CI:-} ]] || exit 1
fi
exit "$code"
