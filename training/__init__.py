"""Training, installed as ``qsit_plugin.training``. In this version: how the embedded model is made (``nano/``)."""
