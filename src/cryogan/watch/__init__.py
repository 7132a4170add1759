"""A page that shows runs as they go (`cryogan watch`), and the same in lines of text.

It reads run folders and writes nothing.
"""
