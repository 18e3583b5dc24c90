"""Reports: one page that holds everything there is to see of one or several runs, readable without a network."""
