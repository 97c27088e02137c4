"""A whole region on one machine: namespaces, routers, nodes, watchers, faults and the story that is told with them."""
