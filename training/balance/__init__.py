"""How much of each kind of data to train on: found with short runs of a light model, as Q-SiT's authors do."""
