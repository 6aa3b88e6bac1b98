"""How good scores are: datasets with human ratings, correlations, calibration, multiple choice.

Used by the command line, training and benchmarks. Needs ``pip install "qsit-plugin[bench]"``.
"""
