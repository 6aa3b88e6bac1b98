"""Training, installed as ``qsit_plugin.training``: levels, conversion of datasets, the mixture; how nano was made."""
