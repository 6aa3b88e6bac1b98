"""Where the images of a run come from: files, folders, tar shards, datasets, addresses."""
