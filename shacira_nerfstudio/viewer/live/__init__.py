"""The web viewer on viser: a server, files that may still grow, and one drawing loop per client."""
