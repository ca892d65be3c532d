"""Did growing pay: arms of finished runs, compared at equal quality and at equal cost.

No torch here: comparing what lies on disk must be instant.
"""
