"""Stage `select`: the catalogue, its cuts and the network on photometry."""
