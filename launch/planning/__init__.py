"""`glus plan`: what a run costs before it starts, advice, a micro-batch on a pretended GPU.

May import all folders but `demo`.
"""
