"""The report of benchmarks and runs, in three steps.

    throughput, peaks, bottleneck, compiling, accuracy  what files and runs say, as values: findings
    contests, topics, plots, wording                    how a person reads it, as blocks: content
    markdown, page                                      the three files

Arrows point down: nothing above knows how it will be shown.
"""
