#!/usr/bin/env bash
# Unattended on a machine with a GPU: the tests, then one training run on each device, timed. Under nine minutes.
# Usage: benchmarks/gpu.sh [folder for what comes back]
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"
# Without an install (no network), the package is put together as it would install.
if ! python3 -c 'import hrl.agents' 2>/dev/null; then
    site=$(mktemp -d)
    cp -r hrl "$site/hrl" && cp -r agents "$site/hrl/agents" && cp -r envs "$site/hrl/envs"
    mkdir "$site/hrl_scripts" && cp train.py evaluate.py "$site/hrl_scripts/"
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' \
    | tee "$out/gpu.txt"
timeout 240 python3 -m pytest -q -p no:cacheprovider 2>&1 | tail -15 | tee -a "$out/gpu.txt"
for device in cuda cpu; do
    echo "hiro, PointMaze_UMaze-v3, 20,000 steps, device $device" | tee -a "$out/gpu.txt"
    { time timeout 120 python3 train.py hiro --env PointMaze_UMaze-v3 --total-steps 20000 --eval-freq 0 \
        --device "$device" --log-dir "$(mktemp -d)"; } 2>&1 | tail -8 | tee -a "$out/gpu.txt"
done
