"""The report of benchmarks and runs: findings out of files and folders, words and plots for them, three files."""
