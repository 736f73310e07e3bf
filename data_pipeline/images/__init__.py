"""Image datasets as released: files in COCO's form, polygons, `refs(*).p`. An image is a video of one frame.

Imports `raw` only.
"""
