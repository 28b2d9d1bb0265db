"""What the nodes of a cluster agree on, behind protocols: one module per thing, its engines beside."""
