"""Merging: one network from the weights of several, theta = sum_i w_i theta_i and its relatives."""
