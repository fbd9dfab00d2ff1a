"""What is reported: episodes, evaluations, statistics, logs, pictures, videos."""
