"""How one learns: protocols, experience and where it comes from, the training loop."""
