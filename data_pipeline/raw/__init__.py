"""Raw datasets as released -> video records: frames, masks, annotations.

Imports nothing of the other rooms.
"""
