"""Training, installed as ``qsit_plugin.training``.

``data/``: what is trained on. ``config``, ``run``, ``model``, ``loop``, ``losses``, ``schedule``, ``checkpoints``: a
run. ``validation/``: its figures. ``balance/``: the search for a mixture. ``synthetic/``: data made from clean photos.
``nano/``: how the embedded model is made; in the repository only.
"""
