"""The thing observed: nodes that carry packets, their routes, and the control plane above them."""
