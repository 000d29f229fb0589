"""The numbers of Sajjad et al. (arXiv:2004.03844), and ours beside them. No torch."""
