"""Image quality of a series: measured, shown, and mended in new derived series; originals stay untouched.

Contract module 1 (腰椎间盘突出症数据库): cleaning and standardising. Pure functions; `foramen quality` is the edge.
"""
