"""Where versions come from: the line to bisect along, what the weights tell of it, and the tree that is shown."""
