"""The private interfaces of other people's libraries that we touch: each with why, and a check that it still is as we think.

A public way is better; what stands here has none.
"""
