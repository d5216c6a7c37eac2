"""Review: the page on which a folder's pictures and captions are looked at, corrected and decided on; it edits what the commands read."""
