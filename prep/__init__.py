"""Preparing pictures: clean, tag, caption, count tokens, regularize, build the tree."""
