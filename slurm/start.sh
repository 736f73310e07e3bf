set -u

# Ends the job: nothing may run in another folder, or without what the site's file asks for.
give_up() {
    echo "glus: job ${SLURM_JOB_ID:-} not started: $*" >&2
    exit 1
}

# A batch job has no login shell, which would define `module` (Environment Modules or Lmod).
define_module() {
    local file
    for file in "${MODULESHOME:-/nowhere}/init/bash" "${LMOD_PKG:-/nowhere}/init/bash" \
        /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /usr/share/lmod/lmod/init/bash; do
        if [ -r "$file" ]; then . "$file"; fi
        if type module >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# Neither `set -e` nor version 3 of Environment Modules ends a job where a module cannot be loaded.
load_modules() {
    local name status
    set +u      # site scripts use variables that are not set
    if [ "$#" -gt 0 ] && ! type module >/dev/null 2>&1 && ! define_module; then
        give_up "modules: $* asked for, but this machine has no \`module\`: leave \`modules\` out of the site's file"
    fi
    for name; do
        module load "$name"
        status=$?
        if [ "$status" -eq 0 ] && [ -n "${LOADEDMODULES+set}" ] && [ -z "${LMOD_VERSION:-}${MODULES_CMD:-}" ]; then
            case ":$LOADEDMODULES:" in      # version 3 returns 0 whatever happens
                *":$name:"* | *":$name/"*) ;;
                *) status="0, but it is not among $LOADEDMODULES" ;;
            esac
        fi
        [ "$status" = 0 ] || give_up "module load $name failed (status $status): fix \`modules\` in the site's file"
    done
    set -u
}

cd -- "$GLUS_FOLDER" || give_up "the folder that it was submitted from is not on this machine: share it"
load_modules ${GLUS_MODULES[@]+"${GLUS_MODULES[@]}"}

# From SLURM 22.05 on srun does not take it from the job: a step would have one core.
cores=(${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"})
