"""Feature views: one pure function each, the same for training and serving."""
