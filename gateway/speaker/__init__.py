"""The speaker of a node: announces the node's routes by BGP while its forwarding is alive, and not a moment longer."""
