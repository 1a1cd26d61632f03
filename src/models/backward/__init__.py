"""How gradients of tasks become one backward pass."""
