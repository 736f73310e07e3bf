"""Jobs: batch files, submission, their states, and the checks before they start.

Imports `launch`.
"""
