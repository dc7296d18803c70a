"""Semi-supervised image classification: divergences, algorithms, data and training.

Importing this package loads neither torch nor numpy; its modules load what they need.
It knows nothing of optuna, ray, ``search_spaces`` or ``tune_ssl``.
"""
