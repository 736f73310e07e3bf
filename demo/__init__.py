"""The demo: a synthetic world in the released layouts, a pretrained image encoder, and `glus demo`.

May import every folder; nobody imports it (the command line names it as text).
"""
