"""`glus study`: trainings that differ in one part each, their evaluations, what they show.

May import all folders but `demo`.
"""
