#!/usr/bin/env bash
#SBATCH --job-name="sft"
#SBATCH --partition="cpu"
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=12G
#SBATCH --time=0-12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/job.out
#SBATCH --error=logs/job.err
# Written by clusterctl VERSION. To run it again by hand, go to its directory, then:
#   sbatch job.sh     or, on a machine without Slurm:     bash job.sh
set -uo pipefail

fail() { printf 'clusterctl: %s\n' "$@" >&2; exit 1; }

# Slurm runs a copy of this file, in the directory it was submitted from.
RUN_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
[[ -e $RUN_DIR/run.yaml ]] || RUN_DIR=$PWD
[[ -e $RUN_DIR/run.yaml ]] || fail "no run.yaml beside job.sh nor in $PWD" "submit it from its own directory: cd RUN_DIR && sbatch job.sh"
cd -- "$RUN_DIR" || fail "cannot enter $RUN_DIR"
export RUN_DIR CLUSTERCTL_JOB_ID=${SLURM_JOB_ID:-${CLUSTERCTL_JOB_ID:-}}
# scontrol takes the plain number of an array's last task for the whole array.
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || CLUSTERCTL_JOB_ID=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# --- stop requests ------------------------------------------------------------------------------
# USR1 comes 120 s before the time limit, TERM when somebody ends the job. Both mean: save at the
# next step and end. bash runs a trap only between commands, hence `&` and `wait` below.
asked='' child=''
on_stop() {
    [[ $1 != INT || $asked != INT ]] || kill -KILL "$child" 2>/dev/null # Ctrl-C again: at once
    asked=$1 interrupted=1
    [[ -n $child ]] || return 0 # it comes later, see below
    : > "$RUN_DIR/stop"
    kill -USR1 "$child" 2>/dev/null
}
trap 'on_stop USR1' USR1
trap 'on_stop TERM' TERM
trap 'on_stop INT' INT

# One attempt at a time: two would ruin each other's checkpoints. A file system without locks lets it pass.
exec {lock}> "$RUN_DIR/.running"
flock --wait 60 --conflict-exit-code 75 "$lock" 2>/dev/null
[[ $? -ne 75 ]] || fail "another attempt of this run is under way" "look with: clusterctl status"

# --- modules ------------------------------------------------------------------------------------
if ! type module >/dev/null 2>&1; then
    for init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /usr/share/modules/init/bash /usr/share/lmod/lmod/init/bash; do
        # shellcheck disable=SC1090
        [[ -r $init ]] && { set +u; source "$init"; set -u; break; }
    done
fi
type module >/dev/null 2>&1 || fail "this node has no environment modules, but the site file lists some" "remove \`modules\` from clusterctl.yaml, or ask for another partition"
for name in cuda12.2/toolkit/12.2.2 Anaconda3/2023.09-0; do
    set +u
    module load "$name"
    set -u
    # Old versions of `module` return 0 whatever happens.
    case ":${LOADEDMODULES:-}:" in
    *":$name:"* | *":$name/"*) ;;
    *) fail "module $name could not be loaded on $(hostname)" "module avail ${name%%/*} shows what there is; correct \`modules\` in clusterctl.yaml" ;;
    esac
done

# --- Python -------------------------------------------------------------------------------------
command -v conda >/dev/null || fail "conda is not on PATH on $(hostname)" "load its module: \`modules\` in clusterctl.yaml"
set +u
# shellcheck disable=SC1091
source "$(conda info --base)/etc/profile.d/conda.sh"
conda activate clusterctl || fail 'conda environment clusterctl cannot be activated' "conda env list shows what there is"
set -u
PYTHON=(python)
"${PYTHON[@]}" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("trainers") is None)' ||
    fail "${PYTHON[*]} has no clusterctl with its trainers" "install it there: pip install 'clusterctl[train]'"

# --- secrets ------------------------------------------------------------------------------------
# From the environment, else from a file of KEY=value lines that only you can read. Read, never run.
secrets="$HOME"/.config/clusterctl/secrets.env
if [[ -e $secrets ]]; then
    case $(stat -L -c %a -- "$secrets") in
    600 | 400) ;;
    *) fail "$secrets can be read by others" "chmod 600 $secrets" ;;
    esac
    while IFS= read -r line || [[ -n $line ]]; do
        line=${line%$'\r'}
        read -r key <<< "${line%%=*}" # without the blanks around it
        key=${key#export }
        value=${line#*=}
        if [[ $value == \"*\" || $value == \'*\' ]]; then value=${value:1:-1}; fi
        case $key in
        SWANLAB_API_KEY | WANDB_API_KEY | HF_TOKEN) [[ -n ${!key:-} ]] || export "$key=$value" ;;
        esac
    done < "$secrets"
fi
unset line key value

# --- environment --------------------------------------------------------------------------------
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=2
export TOKENIZERS_PARALLELISM=false
export GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592

# --- this attempt -------------------------------------------------------------------------------
# The guard writes attempts.jsonl and refuses to begin when the last attempts made no progress.
CLUSTERCTL_ATTEMPT=$("${PYTHON[@]}" -m trainers.guard begin "$RUN_DIR") || exit 1
export CLUSTERCTL_ATTEMPT
banner="=== attempt $CLUSTERCTL_ATTEMPT · job ${CLUSTERCTL_JOB_ID:-by hand} · $(hostname) · $(date '+%F %T %z') ==="
printf '%s\n' "$banner"
printf '%s\n' "$banner" >&2

# --- the launcher -------------------------------------------------------------------------------
train() { # runs once on each node; SLURM_* of the step are known only here
    # Deaf until the trainer has its own handlers. trainers.launch keeps launchers deaf: they would end the trainers
    # at TERM, which see the file `stop`, save and end by themselves.
    trap '' USR1 TERM INT
    exec "$@" -m trainers "$RUN_DIR/run.yaml"
}

if [[ -n ${SLURM_JOB_ID:-} ]]; then
    export -f train
    # srun does not take --cpus-per-task from the job in Slurm 22.05 to 23.02.
    srun --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --kill-on-bad-exit=1 \
        bash -c 'train "$@"' train "${PYTHON[@]}" &
else
    train "${PYTHON[@]}" &
fi

child=$!
code=1
[[ -z $asked ]] || on_stop "$asked" # it came before there was a child to tell
while :; do
    interrupted=''
    wait "$child"
    status=$?
    [[ $status -eq 127 ]] || code=$status # 127: the child was waited for already
    [[ -n $interrupted ]] || break
done
trap '' USR1 TERM INT

# --- what follows -------------------------------------------------------------------------------
# Preemption with a grace time warns the steps, not this shell. A job that ends within the grace counts as
# failed and stays out of the queue, so it has to ask for its return by itself.
if [[ -n ${SLURM_JOB_ID:-} ]] && job=$(SLURM_TIME_FORMAT=standard scontrol show job "$CLUSTERCTL_JOB_ID" 2>/dev/null); then
    preempted=${job#* PreemptTime=} started=${job#* StartTime=}
    preempted=${preempted%%[[:space:]]*} started=${started%%[[:space:]]*}
    [[ $preempted != [0-9]* || $preempted < $started ]] || asked=PREEMPTED
fi
# The guard reads what the trainer left behind and answers: 0 done, 85 requeue, anything else as it is.
"${PYTHON[@]}" -m trainers.guard end "$RUN_DIR" "$code" "$asked"
verdict=$?
requeue() { # slurmctld may be away for a moment, and what it does not hear is lost
    local pause said
    for pause in 2 5 10 20 40 60; do
        said=$(scontrol requeue "$CLUSTERCTL_JOB_ID" 2>&1) && return
        printf '%s\n' "$said" >&2
        [[ $said =~ isabled|enied|nvalid\ job|lready ]] && return 1 # a refusal; all else may pass
        sleep "$pause"
    done
    return 1
}
if [[ $verdict -eq 85 && -n ${SLURM_JOB_ID:-} ]]; then
    requeue || exit 1
    # Only a job that waits again can be kept from nodes, and this script outlives it a while. Where no other node that
    # is up could hold it, the job would wait for ever.
    nodes=$(sort -u bad_nodes 2>/dev/null | paste -sd,) others=${job#*ExcNodeList=} others=${others%%[[:space:]]*}
    [[ -z $others || $others == '(null)' ]] || nodes+=,$others # somebody's own wish
    if [[ -s bad_nodes ]] && sbatch --test-only --partition="${SLURM_JOB_PARTITION:-}" --exclude="$nodes" job.sh 2>/dev/null; then
        for _ in 1 2 3 4 5; do
            if scontrol update JobId="$CLUSTERCTL_JOB_ID" ExcNodeList="$nodes"; then break; fi
            sleep 1
        done
    fi
    sleep 60 # Slurm ends this script
fi
exit "$verdict"

# --- run.yaml -----------------------------------------------------------------------------------
# schema_version: 1
# name: sft
# stage: sft
# kind: train
# engine: trl
# model:
#   model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct
#   revision: null
#   trust_remote_code: false
#   attn_implementation: sdpa
#   adapter: lora
#   adapter_name_or_path: null
#   lora:
#     r: 16
#     lora_alpha: 32
#     lora_dropout: 0.0
#     target_modules:
#     - all-linear
#     modules_to_save: []
#     use_rslora: false
#     use_dora: false
#   quantization: none
#   double_quant: true
#   freeze: []
#   train_only: []
#   rope_free_layers: []
#   rope_theta: null
#   rope_scaling: null
#   chat_template: null
#   gradient_checkpointing: false
#   use_liger_kernel: false
#   torch_compile: false
# data:
#   train_files:
#   - /CHECKOUT/examples/werewolf/train_en.csv
#   eval_files:
#   - /CHECKOUT/examples/werewolf/eval_en.csv
#   validation_split: 0.0
#   dataset_config_name: null
#   dataset_split: train
#   eval_dataset_split: test
#   probabilities: []
#   format: auto
#   columns: {}
#   text_fields:
#   - text
#   - content
#   system: null
#   skip_bad_rows: false
#   max_length: 1024
#   max_train_samples: null
#   max_eval_samples: null
#   streaming: false
#   cache_dir: null
# method:
#   packing: false
#   neftune_noise_alpha: null
# optim:
#   learning_rate: 0.0002
#   lr_scheduler_type: cosine
#   warmup_steps: 0.03
#   weight_decay: 0.0
#   adam_beta1: 0.9
#   adam_beta2: 0.999
#   max_grad_norm: 1.0
#   optim: adamw_torch_fused
#   num_train_epochs: 2.0
#   max_steps: -1
#   train_batch_size: 4
#   per_device_train_batch_size: 4
#   per_device_eval_batch_size: 8
#   gradient_accumulation_steps: 1
#   dataloader_num_workers: 0
#   seed: 42
# parallel:
#   launcher: python
#   strategy: single
#   offload: none
#   num_nodes: 1
#   processes_per_node: 1
#   ddp_timeout: 1800
#   device: cpu
# precision:
#   dtype: fp32
#   tf32: true
# tracking:
#   report_to: []
#   project: clusterctl
#   swanlab_mode: local
#   swanlab_workspace: null
#   wandb_mode: online
#   wandb_entity: null
# eval:
#   eval_steps: null
#   samples: 0
#   max_new_tokens: 128
#   metric_for_best_model: null
#   greater_is_better: false
#   early_stopping_patience: null
#   early_stopping_threshold: 0.0
# output:
#   logging_steps: 10
#   save_steps: 200
#   save_total_limit: 2
