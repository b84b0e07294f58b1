"""Records that are written once and read strictly: model, labels, checkpoints, manifest."""
