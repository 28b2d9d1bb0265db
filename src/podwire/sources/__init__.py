"""Objects of the Kubernetes API, as rows; and what this node tells the API. First step of the walk."""
