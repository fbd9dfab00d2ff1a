#!/usr/bin/env bash
# Everything that only a GPU can tell, unattended and in under ten minutes a part. `speed`: the GPU tests, the speed table, and
# the time to 90 % success on the batched mazes. `ants`: Ant Maze on MJX, its speed, and training as far as it comes.
# Needs Python >= 3.11 and torch; no network. Other packages that are missing are taken from a folder of wheels, if there is one.
# Usage: benchmarks/gpu.sh [folder for what comes back] [folder of wheels] [speed | ants]
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
wheels=${2:-wheels}
part=${3:-speed}
case "$part" in speed | ants) ;; *) echo "the part is speed or ants, not $part" >&2 && exit 2 ;; esac
mkdir -p "$out"
if [ -d "$wheels" ]; then
    python3 -m pip install -q --no-index --find-links "$wheels" --no-deps "$wheels"/*.whl
fi
# Without an install of our own, the package is put together as it would install.
if ! python3 -c 'import hrl.agents' 2>/dev/null; then
    site=$(mktemp -d)
    cp -r hrl "$site/hrl" && cp -r agents "$site/hrl/agents" && cp -r envs "$site/hrl/envs"
    mkdir "$site/hrl_scripts" && cp train.py evaluate.py "$site/hrl_scripts/"
    # The checkout's own hrl/ knows no hrl.agents: it must not come first.
    export PYTHONSAFEPATH=1 PYTHONPATH="$site:$PWD/benchmarks:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
fi
speed() {
    timeout 90 python3 -m pytest -q -p no:cacheprovider -m gpu tests/test_execution.py tests/test_evaluation.py tests/test_trust.py 2>&1 | tail -15
    timeout 270 python3 benchmarks/speed.py --device cuda --seconds 1 --rows a b c e f d
    timeout 150 python3 benchmarks/race.py --device cuda --sides ours --seeds 1
}
ants() {
    runs=$(mktemp -d)
    export JAX_COMPILATION_CACHE_DIR=$runs/jax
    timeout 90 python3 -m pytest -q -p no:cacheprovider -m gpu tests/test_ants.py 2>&1 | tail -15
    timeout 120 python3 benchmarks/speed.py --device cuda --seconds 1 --repeats 3 --rows k
    # As many of 5M steps as there is time for; the last state is saved, and judged on the CPU's physics.
    timeout -k 30 300 python3 train.py hiro --env hrl/AntMaze-v0 --env-kwargs physics=mjx --device cuda --num-envs 1024 \
        --total-steps 5000000 --eval-freq 0 --save-freq 1000000 --log-dir "$runs"
    cp "$runs"/*/*/*/progress.csv "$out/ants-progress.csv"
    timeout 60 python3 evaluate.py "$runs"/hrl-*/*/* --env hrl/AntMazeEval-v0 --env-kwargs physics=mujoco --episodes 50
    rm -rf "$runs"
}
{
    python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    "$part"
} 2>&1 | tee "$out/gpu-$part.txt"
[ "$out" = benchmarks/results ] || cp benchmarks/results/*-cuda.json "$out/" 2>/dev/null || true
