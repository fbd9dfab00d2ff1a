"""Reports of a run: episodes, evaluations, statistics, logs, pictures and videos."""
