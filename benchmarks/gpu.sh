#!/usr/bin/env bash
# Everything that only a GPU can tell, unattended and in under ten minutes a part.
#   check  the GPU tests, and a minute of training Ant Maze: whether all works there
#   train  5M steps of Ant Maze, its physics on the CPU's cores and all else on the GPU, evaluations included
#   ants   stepping ants, on the cores and on the GPU (MJX)
#   speed  the speed table, and the time to 90 % success on the batched mazes
#   scale  the time to 95 % success with 64 to 16,384 batched mazes
#   seeds  four seeds of Ant Maze side by side, 2M steps each
# Needs Python >= 3.11 and torch; no network. Other packages that are missing are taken from a folder of wheels, if there is one.
# Usage: benchmarks/gpu.sh [folder for what comes back] [folder of wheels] [check | train | ants | speed | scale | seeds]...
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
wheels=${2:-wheels}
parts=("${@:3}")
for part in "${parts[@]:=check}"; do
    case "$part" in check | train | ants | speed | scale | seeds) ;; *) echo "the parts are check, train, ants, speed, scale and seeds, not $part" >&2 && exit 2 ;; esac
done
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
runs=$(mktemp -d)
export JAX_COMPILATION_CACHE_DIR=$runs/jax PYTHONUNBUFFERED=1
ants=(hiro --env hrl/AntMaze-v0 --device cuda --num-envs 128)

check() {
    timeout -k 10 50 python3 train.py "${ants[@]}" --total-steps 400000 --eval-freq 200000 --save-freq 0 --log-dir "$runs/check"
    timeout 90 python3 -m pytest -q -o addopts= -p no:cacheprovider -m gpu --tb=short tests/test_execution.py tests/test_evaluation.py tests/test_trust.py \
        >"$runs/tests.txt" 2>&1 &
    timeout 90 python3 -m pytest -q -o addopts= -p no:cacheprovider -m gpu --tb=short tests/test_physics.py >"$runs/mjx.txt" 2>&1 &
    wait
    tail -60 "$runs/tests.txt"
    tail -30 "$runs/mjx.txt"
}
train() {
    timeout -k 20 540 python3 train.py "${ants[@]}" --total-steps 5000000 --eval-freq 500000 --save-freq 0 --log-dir "$runs/train"
    cp "$runs"/train/*/*/*/progress.csv "$out/ants-progress.csv"
    timeout 30 python3 evaluate.py "$runs"/train/*/*/* --episodes 50 --plot "$out/ants.png"
}
ants() {
    timeout 60 python3 benchmarks/speed.py --out "$out" --device cpu --seconds 1 --repeats 3 --rows j
    timeout 150 python3 benchmarks/speed.py --out "$out" --device cuda --seconds 1 --repeats 3 --rows k
}
speed() {
    timeout 270 python3 benchmarks/speed.py --out "$out" --device cuda --seconds 1 --rows floor a b c e f d
    timeout 150 python3 benchmarks/race.py --device cuda --sides ours --seeds 1
}
scale() {
    timeout 500 python3 benchmarks/scale.py --device cuda --seeds 2
}
seeds() {
    for seed in 0 1 2 3; do
        timeout -k 20 480 python3 train.py "${ants[@]}" --threads 1 --seed $seed --eval-freq 500000 --save-freq 0 \
            --log-dir "$runs/seeds/$seed" >"$runs/seed-$seed.txt" 2>&1 &
    done
    wait
    for seed in 0 1 2 3; do
        tail -n 2 "$runs/seed-$seed.txt"
        cp "$runs"/seeds/$seed/*/*/*/progress.csv "$out/ants-seed-$seed.csv"
        timeout 25 python3 evaluate.py "$runs"/seeds/$seed/*/*/* --env hrl/AntMazeEval-v0 --episodes 50 --json
    done
}
{
    python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    for part in "${parts[@]}"; do
        SECONDS=0
        "$part"
        echo "$part: $SECONDS s"
    done
} 2>&1 | tee -a "$out/gpu.txt"
rm -rf "$runs"
[ "$out" = benchmarks/results ] || cp benchmarks/results/{race,scale}-cuda.json "$out/" 2>/dev/null || true
